//! From the run to the table.

use std::fmt::Write;

use forebay_benches::figures::{micros, thousands, verdict};
use serde::Serialize;
use serde_json::Value;

use crate::fill::Filled;

const RSS: u64 = 64 << 20;
const LISTENING_S: f64 = 2.0;

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) filled: Filled,
    pub(crate) away: Away,
    pub(crate) up: Up,
}

/// The first life, with the cloud away. Memory in bytes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Away {
    pub(crate) listening_s: f64,
    pub(crate) rss_at_start: u64,
    /// All sessions connected, all messages retained.
    pub(crate) rss_connected: u64,
    /// All sessions absent, after the load.
    pub(crate) rss_absent: u64,
    pub(crate) peak_rss: u64,
    pub(crate) acks_per_s: f64,
    pub(crate) p99_us: f64,
}

/// The second life, after SIGKILL, with a cloud.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Up {
    pub(crate) listening_s: f64,
    /// Of it the opening of the log.
    pub(crate) opened_s: f64,
    /// Records that waited when it was asked first.
    pub(crate) at_start: u64,
    pub(crate) rss_at_start: u64,
    pub(crate) replay_per_s: f64,
    /// While publishes come in.
    pub(crate) replay_beside_per_s: f64,
    pub(crate) acks_per_s: f64,
    pub(crate) p99_us: f64,
    /// Records that the cloud got, repetitions included.
    pub(crate) received: u64,
    /// Records taken in over both lives.
    pub(crate) accepted: u64,
    pub(crate) drain_s: f64,
    pub(crate) space_s: f64,
    pub(crate) occupied: u64,
    pub(crate) rss_after: u64,
    pub(crate) peak_rss: u64,
    /// The gateway's own count of what became of all.
    pub(crate) ledger: Value,
}

/// One line per figure, with its goal where it has one.
pub(crate) fn table(run: &Run) -> String {
    let (filled, away, up) = (&run.filled, &run.away, &run.up);
    let mut text = String::from("\n| what | found | goal | |\n|---|---:|---|---|\n");
    let mut line = |what: &str, found: String, goal: Option<(String, bool)>| {
        let (goal, verdict) = goal.map_or(("-".into(), ""), |(goal, met)| (goal, verdict(met)));
        writeln!(text, "| {what} | {found} | {goal} | {verdict} |").ok();
    };
    let rss = |bytes: u64| Some(("under 64 MiB".to_owned(), bytes < RSS));
    let listening = |seconds: f64| Some((format!("within {LISTENING_S} s"), seconds <= LISTENING_S));
    line(
        "filled through the log's API",
        format!(
            "{} records/s; {:.2} GB encoded, {:.2} GB on disk",
            thousands(filled.records as f64 / filled.took_s),
            filled.bytes as f64 / 1e9,
            filled.occupied as f64 / 1e9
        ),
        None,
    );
    line(
        "read by a reader alone, checksums verified",
        format!("{} records/s, {:.0} MB/s", thousands(filled.read_per_s), filled.read_mb_s),
        None,
    );
    line(
        "listening after a clean start",
        seconds(away.listening_s),
        listening(away.listening_s),
    );
    line("RSS at start", mib(away.rss_at_start), rss(away.rss_at_start));
    line(
        "RSS, all sessions connected, all messages retained",
        mib(away.rss_connected),
        rss(away.rss_connected),
    );
    line(
        "RSS, all sessions absent, after the load",
        mib(away.rss_absent),
        rss(away.rss_absent),
    );
    line("peak RSS with the cloud away", mib(away.peak_rss), rss(away.peak_rss));
    line("100 x 20 publishing, cloud away", acks(away.acks_per_s, away.p99_us), None);
    line(
        "listening after SIGKILL",
        format!("{} (the log opened in {})", seconds(up.listening_s), seconds(up.opened_s)),
        listening(up.listening_s),
    );
    line("RSS then", mib(up.rss_at_start), rss(up.rss_at_start));
    line("replay alone", format!("{} records/s", thousands(up.replay_per_s)), None);
    line("100 x 20 publishing while it replays", acks(up.acks_per_s, up.p99_us), None);
    line("replay meanwhile", format!("{} records/s", thousands(up.replay_beside_per_s)), None);
    line(
        "drained, 100 x 20 publishing for a part of it",
        format!(
            "in {}, {} records/s; accepted {}, sent to the cloud {}",
            seconds(up.drain_s),
            thousands(up.received as f64 / up.drain_s),
            up.accepted,
            up.received
        ),
        None,
    );
    line(
        "space after the drain",
        format!("{} within {}", mib(up.occupied), seconds(up.space_s)),
        None,
    );
    line("peak RSS while draining", mib(up.peak_rss), rss(up.peak_rss));
    line("RSS after the drain", mib(up.rss_after), rss(up.rss_after));
    text
}

fn seconds(value: f64) -> String {
    format!("{value:.2} s")
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn acks(per_s: f64, p99_us: f64) -> String {
    format!("{} acks/s, p99 {}", thousands(per_s), micros(p99_us))
}
