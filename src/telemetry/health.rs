//! The two verdicts: can a publish be acked truthfully now, and would a restart help?

use super::figures::Figures;
use crate::config::show_bytes;

/// What keeps a publish from being acked truthfully now; empty = ready. The cloud's absence does not: the log takes what comes.
#[must_use]
pub(crate) fn not_ready(figures: &Figures) -> Vec<String> {
    let mut missing = restart_helps(figures);
    if let Some(reason) = &figures.log.unavailable {
        missing.push(format!("the log cannot be written: {reason}"));
    }
    // A stream that drops its oldest still takes what comes.
    for stream in figures.log.streams.iter().filter(|stream| stream.refuses && stream.is_full()) {
        missing.push(format!(
            "stream `{}` is full: {} of {} wait for the cloud; raise its max_bytes or mend the link",
            stream.name,
            show_bytes(stream.waiting_bytes),
            show_bytes(stream.max_bytes)
        ));
    }
    missing
}

/// What only a restart mends; empty = healthy.
#[must_use]
pub(crate) fn restart_helps(figures: &Figures) -> Vec<String> {
    let mut broken = Vec::new();
    if !figures.front.fanout_alive {
        broken.push("the fan-out to local subscribers has ended; restart the gateway (nothing acked is lost)".to_owned());
    }
    broken
}
