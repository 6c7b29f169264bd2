//! Levels that appending threads and readers watch without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// What waits, per stream: committed or about to be.
#[derive(Debug)]
pub(crate) struct Gauges {
    levels: Box<[Level]>,
}

#[derive(Debug, Default)]
struct Level {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Gauges {
    pub(crate) fn new() -> Self {
        Self {
            levels: (0..=u8::MAX).map(|_| Level::default()).collect(),
        }
    }

    pub(crate) fn enter(&self, stream: u8, records: u64, bytes: u64) {
        let level = &self.levels[usize::from(stream)];
        level.records.fetch_add(records, Ordering::Relaxed);
        level.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self, stream: u8, records: u64, bytes: u64) {
        let level = &self.levels[usize::from(stream)];
        let down = |gauge: &AtomicU64, by: u64| {
            // An estimate (internal streams) may exceed what is left; a level never wraps.
            gauge
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| Some(value.saturating_sub(by)))
                .ok();
        };
        down(&level.records, records);
        down(&level.bytes, bytes);
    }

    pub(crate) fn records(&self, stream: u8) -> u64 {
        self.levels[usize::from(stream)].records.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self, stream: u8) -> u64 {
        self.levels[usize::from(stream)].bytes.load(Ordering::Relaxed)
    }
}
