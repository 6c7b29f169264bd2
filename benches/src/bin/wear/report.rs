//! From runs to tables.

use std::fmt::Write;
use std::time::Duration;

use clap::ValueEnum;
use forebay_benches::engine::forebay::encoded_bytes;
use forebay_benches::figures::{Spread, verdict};
use serde::Serialize;

use crate::cell::Cell;
use crate::mosquitto::Save;

/// GB per day at the rates of a plant with the wait that is recommended for cards.
const GB_PER_DAY: f64 = 8.0;
const GB_AT: [f64; 3] = [10.0, 40.0, 100.0];
const GB_WAIT_MS: u64 = 500;
/// Bytes per byte of payload where commits are full.
const PER_BYTE: f64 = 1.4;
const PER_BYTE_AT: f64 = 5000.0;
const PER_BYTE_WAIT_MS: u64 = 100;

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Engine {
    /// Forebay's log; the cloud acks each record 50 ms after its commit.
    Forebay,
    /// The same with the cloud away: nothing is settled.
    ForebayAway,
    /// SQLite (WAL, FULL), a row per message, committed after the same wait.
    Sqlite,
    /// The whole gateway over MQTT, with a cloud; only at the points that have a goal.
    Gateway,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Engine::Forebay => "Forebay",
            Engine::ForebayAway => "Forebay, cloud away",
            Engine::Sqlite => "SQLite, a row per message",
            Engine::Gateway => "the whole gateway",
        }
    }
}

/// What was written within a window.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    engine: Engine,
    rate: f64,
    commit_wait_ms: u64,
    payload: usize,
    window_s: f64,
    /// At the block layer, or as the kernel counts for the process.
    at_block_layer: bool,
    written: u64,
    records: u64,
    commits: u64,
    gb_per_day: f64,
    /// Bytes written per byte of MQTT payload.
    per_payload_byte: f64,
    /// Bytes written per byte of encoded record.
    per_record_byte: f64,
}

impl Run {
    pub(crate) fn new(cell: &Cell, at_block_layer: bool, written: u64, records: u64, commits: u64) -> Run {
        let bytes = written as f64;
        let per = |size: usize| bytes / (records.max(1) as f64 * size as f64);
        Run {
            engine: cell.engine,
            rate: cell.rate,
            commit_wait_ms: cell.wait.as_millis() as u64,
            payload: cell.payload,
            window_s: cell.window.as_secs_f64(),
            at_block_layer,
            written,
            records,
            commits,
            gb_per_day: bytes / cell.window.as_secs_f64() * Duration::from_hours(24).as_secs_f64() / 1e9,
            per_payload_byte: per(cell.payload),
            per_record_byte: per(encoded_bytes(cell.payload)),
        }
    }

    pub(crate) fn summary(&self) -> String {
        format!(
            "{} at {}/s, {} ms: {:.2} GB/day, {:.2} B per payload byte, {:.2} per record byte; {} records in {} commits in {:.0} s",
            self.engine.name(),
            self.rate,
            self.commit_wait_ms,
            self.gb_per_day,
            self.per_payload_byte,
            self.per_record_byte,
            self.records,
            self.commits,
            self.window_s
        )
    }

    fn is_at(&self, engine: Engine, rate: f64, wait: u64) -> bool {
        self.engine == engine && self.rate == rate && self.commit_wait_ms == wait
    }
}

/// A row per rate and engine, a column per wait.
pub(crate) fn grid(runs: &[Run]) -> String {
    let (rates, waits) = (rates(runs), waits(runs));
    let mut text = String::from("\n| messages/s | log |");
    for wait in &waits {
        write!(text, " {wait} ms |").ok();
    }
    text.push_str("\n|---:|---|");
    text.push_str(&"---:|".repeat(waits.len()));
    text.push('\n');
    for rate in rates {
        for engine in Engine::value_variants().iter().copied() {
            if !runs.iter().any(|run| run.engine == engine && run.rate == rate) {
                continue;
            }
            write!(text, "| {rate} | {} |", engine.name()).ok();
            for wait in &waits {
                let at = || runs.iter().filter(|run| run.is_at(engine, rate, *wait));
                let gb = Spread::of(at().map(|run| run.gb_per_day)).median;
                let payload = Spread::of(at().map(|run| run.per_payload_byte)).median;
                if gb.is_nan() {
                    text.push_str(" - |");
                } else {
                    write!(text, " {gb:.2} ({payload:.2}) |").ok();
                }
            }
            text.push('\n');
        }
    }
    text
}

/// The goals and what came of them.
pub(crate) fn goals(runs: &[Run]) -> String {
    let mut text = String::from("\n| goal | log | found (spread of the runs) | |\n|---|---|---:|---|\n");
    for engine in [Engine::Forebay, Engine::ForebayAway, Engine::Gateway] {
        for rate in GB_AT {
            let found = Spread::of(
                runs.iter()
                    .filter(|run| run.is_at(engine, rate, GB_WAIT_MS))
                    .map(|run| run.gb_per_day),
            );
            line(
                &mut text,
                &format!("{GB_PER_DAY} GB/day at {rate}/s, {GB_WAIT_MS} ms"),
                engine,
                found,
                GB_PER_DAY,
            );
        }
        let full = || runs.iter().filter(|run| run.is_at(engine, PER_BYTE_AT, PER_BYTE_WAIT_MS));
        let what = format!("{PER_BYTE} bytes written at {PER_BYTE_AT}/s, {PER_BYTE_WAIT_MS} ms, per byte of");
        let payload = Spread::of(full().map(|run| run.per_payload_byte));
        line(&mut text, &format!("{what} MQTT payload"), engine, payload, PER_BYTE);
        let record = Spread::of(full().map(|run| run.per_record_byte));
        line(&mut text, &format!("{what} encoded record"), engine, record, PER_BYTE);
    }
    text
}

/// What Mosquitto writes; by its autosave calculated from one save.
pub(crate) fn saves(saves: &[Save]) -> String {
    if saves.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n| Mosquitto, messages waiting | one save | GB/day by autosave each second | each minute | each 30 min (its default) |\n\
         |---:|---:|---:|---:|---:|\n",
    );
    for save in saves {
        let by = |seconds: f64| save.written as f64 / seconds * Duration::from_hours(24).as_secs_f64() / 1e9;
        writeln!(
            text,
            "| {} | {:.2} MB | {:.2} | {:.2} | {:.3} |",
            save.waiting,
            save.written as f64 / 1e6,
            by(1.0),
            by(60.0),
            by(1800.0)
        )
        .ok();
    }
    text
}

fn line(text: &mut String, goal: &str, engine: Engine, found: Spread, at_most: f64) {
    if !found.median.is_nan() {
        let verdict = verdict(found.median <= at_most);
        writeln!(text, "| at most {goal} | {} | {found} | {verdict} |", engine.name()).ok();
    }
}

fn rates(runs: &[Run]) -> Vec<f64> {
    let mut rates: Vec<_> = runs.iter().map(|run| run.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    rates
}

fn waits(runs: &[Run]) -> Vec<u64> {
    let mut waits: Vec<_> = runs.iter().map(|run| run.commit_wait_ms).collect();
    waits.sort_unstable();
    waits.dedup();
    waits
}
