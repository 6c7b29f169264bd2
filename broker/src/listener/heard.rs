//! When a peer was last heard, before its CONNECT.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The last time that bytes of one peer came.
#[derive(Debug)]
pub(super) struct Heard {
    accepted: Instant,
    /// Milliseconds since then, and one; 0 for nothing heard.
    last_ms: AtomicU64,
    /// It has its CONNECT: nothing is noted any more.
    is_over: AtomicBool,
}

impl Heard {
    pub(super) fn new(accepted: Instant) -> Self {
        Self {
            accepted,
            last_ms: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Bytes came.
    pub(super) fn note(&self, now: Instant) {
        if !self.is_over.load(Ordering::Relaxed) {
            let elapsed = now.duration_since(self.accepted).as_millis();
            self.last_ms
                .store(u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Whether bytes came just now.
    pub(super) fn note_if(&self, came: bool) {
        if came && !self.is_over.load(Ordering::Relaxed) {
            self.note(Instant::now());
        }
    }

    /// Notes nothing any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// For how long the peer has been silent, and whether anything ever came.
    pub(super) fn silence(&self, now: Instant) -> (Duration, bool) {
        let last = self.last_ms.load(Ordering::Relaxed);
        let since = self.accepted + Duration::from_millis(last.saturating_sub(1));
        (now.saturating_duration_since(since), last > 0)
    }
}
