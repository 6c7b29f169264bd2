//! What all clients of a run write down.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::Histogram;

/// The shared notes of a run; one thread, so a `RefCell` around it is enough.
#[derive(Debug)]
pub(crate) struct Diary {
    from: Instant,
    until: Instant,
    /// Acks within the measured window.
    pub(crate) acked: u64,
    /// Their latencies.
    pub(crate) latency: Histogram,
    /// How late paced publishes were sent.
    pub(crate) lag: Histogram,
    /// What went wrong, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Diary {
    pub(crate) fn new(from: Instant, until: Instant) -> Diary {
        Diary {
            from,
            until,
            acked: 0,
            latency: Histogram::default(),
            lag: Histogram::default(),
            errors: BTreeMap::new(),
        }
    }

    /// When the last publish is sent.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    pub(crate) fn acked(&mut self, since: Instant, now: Instant) {
        if now >= self.from && now < self.until {
            self.acked += 1;
            self.latency.record(now.saturating_duration_since(since));
        }
    }

    pub(crate) fn late(&mut self, due: Instant, now: Instant) {
        if now >= self.from && now < self.until {
            self.lag.record(now.saturating_duration_since(due));
        }
    }

    pub(crate) fn error(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }
}
