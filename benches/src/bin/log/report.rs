//! From runs to tables. A ratio is taken within one round; the table has the median of the rounds' ratios.

use std::fmt::Write;

use forebay_benches::figures::{Spread, micros, thousands, verdict};
use forebay_benches::producers::Played;
use serde::Serialize;

use crate::{Engine, Sum};

/// Of a raw file's commits per second, by records per commit.
const OF_RAW: [(u32, f64); 5] = [(1, 0.65), (8, 0.5), (64, 0.55), (512, 0.6), (4096, 0.65)];
/// Of SQLite's acks per second, by producers.
const OF_SQLITE: [(u32, f64); 4] = [(1, 0.9), (16, 0.9), (256, 1.5), (2000, 3.0)];

/// One engine's commits of one size in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CommitRun {
    part: &'static str,
    round: u32,
    engine: Engine,
    records: u32,
    commits: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// Write calls per commit, as the kernel counts them for the process.
    calls: f64,
    /// KiB handed to the kernel per commit.
    kib: f64,
}

/// One engine with so many producers in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProducerRun {
    part: &'static str,
    round: u32,
    engine: Engine,
    producers: u32,
    acks_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl CommitRun {
    pub(crate) fn new(round: u32, engine: Engine, records: u32, sum: &Sum) -> CommitRun {
        let commits = sum.latency.len();
        let us = |quantile| sum.latency.quantile(quantile).as_secs_f64() * 1e6;
        CommitRun {
            part: "commits",
            round,
            engine,
            records,
            commits,
            p50_us: us(0.5),
            p99_us: us(0.99),
            max_us: sum.latency.max().as_secs_f64() * 1e6,
            calls: sum.calls as f64 / commits as f64,
            kib: sum.bytes as f64 / 1024.0 / commits as f64,
        }
    }

    pub(crate) fn summary(&self) -> String {
        let (engine, records, p50, p99) = (self.engine, self.records, micros(self.p50_us), micros(self.p99_us));
        format!(
            "{engine:?}, {records} per commit: p50 {p50}, p99 {p99}, {:.1} writes, {:.1} KiB",
            self.calls, self.kib
        )
    }
}

impl ProducerRun {
    pub(crate) fn new(round: u32, engine: Engine, producers: u32, played: &Played) -> ProducerRun {
        let us = |quantile| played.latency.quantile(quantile).as_secs_f64() * 1e6;
        ProducerRun {
            part: "producers",
            round,
            engine,
            producers,
            acks_per_s: played.acked as f64 / played.took.as_secs_f64(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            max_us: played.latency.max().as_secs_f64() * 1e6,
        }
    }

    pub(crate) fn summary(&self) -> String {
        let (engine, producers, p50, p99) = (self.engine, self.producers, micros(self.p50_us), micros(self.p99_us));
        format!(
            "{engine:?}, {producers} producers: {:.0} acks/s, p50 {p50}, p99 {p99}",
            self.acks_per_s
        )
    }
}

/// The tables of commits: latency and ratios, then what a commit writes.
pub(crate) fn commits(runs: &[CommitRun]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut ratios = String::from(
        "\n| records per commit | raw p50 | Forebay p50 / p99 | SQLite p50 / p99 | of raw | goal | | of raw behind a thread | of redb by itself | of SQLite |\n\
         |---:|---:|---:|---:|---:|---:|---|---:|---:|---:|\n",
    );
    let mut written = String::from(
        "\n| records per commit | writes: raw | Forebay | redb | SQLite | KiB: raw | Forebay | redb | SQLite |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for records in points(runs.iter().map(|run| run.records)) {
        let all = |engine, value: fn(&CommitRun) -> f64| {
            let chosen = runs.iter().filter(move |run| run.records == records && run.engine == engine);
            chosen.map(value).collect::<Vec<_>>()
        };
        let median = |engine, value| Spread::of(all(engine, value)).median;
        // A ratio of rates is one of times turned round.
        let against = |engine| ratio(&all(engine, |run| run.p50_us), &all(Engine::Forebay, |run| run.p50_us));
        let of_raw = against(Engine::Raw);
        writeln!(
            ratios,
            "| {records} | {} | {} | {} | {of_raw} | {} | {} | {} | {} |",
            time(median(Engine::Raw, |run| run.p50_us)),
            times(median(Engine::Forebay, |run| run.p50_us), median(Engine::Forebay, |run| run.p99_us)),
            times(median(Engine::Sqlite, |run| run.p50_us), median(Engine::Sqlite, |run| run.p99_us)),
            goal(&OF_RAW, records, of_raw),
            against(Engine::RawThread),
            against(Engine::Redb),
            against(Engine::Sqlite),
        )
        .ok();
        let [calls, kib]: [fn(&CommitRun) -> f64; 2] = [|run| run.calls, |run| run.kib];
        let cells = [calls, kib].map(|value| {
            [Engine::Raw, Engine::Forebay, Engine::Redb, Engine::Sqlite]
                .map(|engine| number(median(engine, value)))
                .join(" | ")
        });
        writeln!(written, "| {records} | {} |", cells.join(" | ")).ok();
    }
    ratios + &written
}

/// The table of producers.
pub(crate) fn producers(runs: &[ProducerRun]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n| producers | Forebay acks/s | p50 / p99 | SQLite acks/s | p50 / p99 | of SQLite | goal | | of raw behind a thread | of redb by itself |\n\
         |---:|---:|---:|---:|---:|---:|---:|---|---:|---:|\n",
    );
    for producers in points(runs.iter().map(|run| run.producers)) {
        let all = |engine, value: fn(&ProducerRun) -> f64| {
            let chosen = runs.iter().filter(move |run| run.producers == producers && run.engine == engine);
            chosen.map(value).collect::<Vec<_>>()
        };
        let median = |engine, value| Spread::of(all(engine, value)).median;
        let against = |engine| ratio(&all(Engine::Forebay, |run| run.acks_per_s), &all(engine, |run| run.acks_per_s));
        let of_sqlite = against(Engine::Sqlite);
        writeln!(
            text,
            "| {producers} | {} | {} | {} | {} | {of_sqlite} | {} | {} | {} |",
            thousands(median(Engine::Forebay, |run| run.acks_per_s)),
            times(median(Engine::Forebay, |run| run.p50_us), median(Engine::Forebay, |run| run.p99_us)),
            thousands(median(Engine::Sqlite, |run| run.acks_per_s)),
            times(median(Engine::Sqlite, |run| run.p50_us), median(Engine::Sqlite, |run| run.p99_us)),
            goal(&OF_SQLITE, producers, of_sqlite),
            against(Engine::Raw),
            against(Engine::Redb),
        )
        .ok();
    }
    text
}

/// Each round's quotient.
fn ratio(over: &[f64], under: &[f64]) -> Spread {
    Spread::of(over.iter().zip(under).map(|(over, under)| over / under))
}

/// Two cells: the goal and what came of it.
fn goal(goals: &[(u32, f64)], point: u32, found: Spread) -> String {
    match goals.iter().find(|(at, _)| *at == point) {
        Some((_, goal)) if !found.median.is_nan() => format!("{goal} | {}", verdict(found.median >= *goal)),
        Some((_, goal)) => format!("{goal} | not measured"),
        None => "- | ".into(),
    }
}

fn points(all: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut points: Vec<_> = all.collect();
    points.sort_unstable();
    points.dedup();
    points
}

fn times(p50: f64, p99: f64) -> String {
    if p50.is_nan() {
        return "-".into();
    }
    format!("{} / {}", time(p50), time(p99))
}

fn time(us: f64) -> String {
    if us.is_nan() { "-".into() } else { micros(us) }
}

fn number(value: f64) -> String {
    if value.is_nan() { "-".into() } else { format!("{value:.1}") }
}
