//! What is said and counted of records that are evicted.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::disk::{Omission, SimDisk};
use super::failing::Lines;
use super::rotation::{numbers, open_with, options_within, store_of};
use crate::commit::writer::Writer;
use crate::log::Log;
use crate::options::WhenFull;
use crate::sync::lock;
use crate::testing::ManualClock;

const MIB: u64 = 1 << 20;
const MAX_DISK: u64 = 64 * MIB;
const DROPPED: &str = "acked records were dropped";

/// A log that drops its oldest at a bound, of small segments and with its ballast.
fn open_dropping(disk: &SimDisk, max_bytes: u64, clock: &Arc<ManualClock>) -> (Log, Writer) {
    let mut options = options_within(MAX_DISK);
    options.streams[0].max_bytes = max_bytes;
    options.streams[0].when_full = WhenFull::DropOldest;
    let (log, mut writer) = open_with(disk, options, clock.clone());
    writer.space.segment_bytes = 128 << 10;
    writer.tick();
    (log, writer)
}

fn store_all(log: &Log, writer: &mut Writer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert!(store_of(log, writer, number, 3000), "{number} was refused");
    }
}

/// The lines about dropped records that are logged meanwhile.
fn told(action: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        // Another test may just have said, without a subscriber, that no one wants the line.
        tracing::callsite::rebuild_interest_cache();
        action();
    });
    let lines = lock(&lines.0);
    lines.iter().filter(|line| line.contains(DROPPED)).cloned().collect()
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Evicted at `max_bytes`, at `max_disk` and at `keep_free`.
fn evicted(log: &Log) -> [u64; 3] {
    let at = &log.stats().evicted_at;
    let by_bound = [value(&at.max_bytes), value(&at.max_disk), value(&at.keep_free)];
    assert_eq!(by_bound.iter().sum::<u64>(), value(&log.stats().evicted));
    by_bound
}

#[test]
fn an_eviction_is_told_at_once_with_its_counts_and_the_bound_that_was_reached() {
    for is_file_system in [true, false] {
        let disk = SimDisk::new(1, Omission::Nothing);
        let (log, mut writer) = open_dropping(&disk, 8 * MIB, &Arc::new(ManualClock::trusted()));
        store_all(&log, &mut writer, 0..150);
        assert_eq!(evicted(&log), [0; 3]);
        // A little less than a batch without what must stay free for trimming.
        if is_file_system {
            disk.set_free(Some(250));
        } else {
            let used = log.status().disk_bytes;
            log.note_beside(MAX_DISK - used - 250 * 4096);
        }
        let lines = told(|| store_all(&log, &mut writer, 150..151));
        let [0, at_max_disk, at_keep_free] = evicted(&log) else {
            panic!("{:?}", evicted(&log));
        };
        let (here, elsewhere, advice) = if is_file_system {
            (at_keep_free, at_max_disk, "free some space on it, or lower gateway.keep_free")
        } else {
            (at_max_disk, at_keep_free, "gateway.max_disk is 64 MiB: raise it")
        };
        assert!(here > 0 && elsewhere == 0, "{:?}", evicted(&log));
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(
            lines[0].contains(advice) && lines[0].contains(&format!("records={here} ")),
            "{lines:#?}"
        );
        assert_eq!(numbers(&log), (here..151).collect::<Vec<_>>());
        assert!(here < 75, "one segment was wanted: {here}");
    }
}

#[test]
fn a_bound_that_stays_reached_is_told_once_a_minute_with_all_that_went() {
    let (disk, clock) = (SimDisk::new(1, Omission::Nothing), Arc::new(ManualClock::trusted()));
    let (log, mut writer) = open_dropping(&disk, 256 << 10, &clock);
    let first = told(|| store_all(&log, &mut writer, 0..300));
    assert_eq!(first.len(), 1, "{first:#?}");
    assert!(first[0].contains("stream `main` is at its max_bytes: raise it"), "{first:#?}");
    let before = evicted(&log)[0];
    clock.advance(Duration::from_secs(59));
    assert_eq!(told(|| writer.tick()), Vec::<String>::new());
    clock.advance(Duration::from_secs(2));
    let second = told(|| writer.tick());
    let counts = |lines: &[String]| -> Vec<u64> {
        let count = |line: &String| line.split("records=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        lines.iter().map(count).collect()
    };
    assert_eq!(counts(&first).iter().chain(&counts(&second)).sum::<u64>(), before);
    clock.advance(Duration::from_secs(120));
    assert_eq!(told(|| writer.tick()), Vec::<String>::new(), "nothing more went");
    // What the minute has not brought out yet the end does.
    let last = told(|| {
        store_all(&log, &mut writer, 300..340);
        let batch = writer.swap(&mut lock(&log.shared().intake));
        writer.finish(batch).unwrap();
    });
    assert_eq!(counts(&last).iter().sum::<u64>(), evicted(&log)[0] - before, "{last:#?}");
    assert_eq!(last.len(), 2, "{last:#?}");
}
