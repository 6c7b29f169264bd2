//! When a batch that is due waits for more: while a thread that appended to it is still at work.
//!
//! More records are then on their way, and each commit costs the CPU as much as some thirty publishes. Under a calm load such a
//! thread rests right after its append, so the commit begins at once; under a full one batches grow.

use std::time::{Duration, Instant};

use crate::intake::batch::OpenBatch;
use crate::intake::busy::BusyThreads;

/// The longest wait, from the first record of the batch. In unit tests it is so long that only a rest can end it.
const LONGEST: Duration = if cfg!(test) {
    Duration::from_secs(60)
} else {
    Duration::from_millis(5)
};
/// Records at which a batch waits for no more.
const ENOUGH: usize = 2_000;

/// Until when a batch that is due now waits, at most; `None` = it does not.
pub(crate) fn until(now: Instant, open: &OpenBatch, busy: &BusyThreads) -> Option<Instant> {
    let until = open.since? + LONGEST;
    (open.records.len() < ENOUGH && until > now && busy.is_any()).then_some(until)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::encoding::entry::{Appended, Entry};
    use crate::error::CommitError;
    use crate::intake::busy::{Rests, appended, rest};
    use crate::listener::CommitListener;
    use crate::log::Log as TheLog;
    use crate::options::{Options, StreamOptions, WhenFull};
    use crate::record::{Batch, NewRecord, StreamId};
    use crate::testing::{ManualClock, Unobserved};

    struct Log(BusyThreads);

    impl Rests for Log {
        fn busy_threads(&self) -> &BusyThreads {
            &self.0
        }

        fn all_rest(&self) {}
    }

    #[test]
    fn a_batch_waits_for_a_busy_thread_but_neither_long_nor_for_a_crowd() {
        let since = Instant::now();
        let log = Arc::new(Log(BusyThreads::default()));
        let mut open = OpenBatch::new(Batch(1));
        open.since = Some(since);
        assert_eq!(until(since, &open, &log.0), None, "nobody is at work");
        rest();
        appended(&log);
        let longest = since + LONGEST;
        assert_eq!(until(since, &open, &log.0), Some(longest));
        assert_eq!(until(longest - Duration::from_micros(1), &open, &log.0), Some(longest));
        assert_eq!(until(longest, &open, &log.0), None);
        let record = || Appended {
            stream: 0,
            offset: 0,
            entry: Entry {
                partition: 0,
                slot: 0,
                at: 0,
                len: 0,
            },
        };
        open.records.extend(std::iter::repeat_with(record).take(ENOUGH - 1));
        assert_eq!(until(since, &open, &log.0), Some(longest));
        open.records.push(record());
        assert_eq!(until(since, &open, &log.0), None);
        open.records.clear();
        rest();
        assert_eq!(until(since, &open, &log.0), None);
    }

    #[derive(Default)]
    struct Committed(AtomicU64);

    impl CommitListener for Committed {
        fn committed(&self, batch: Batch) {
            self.0.store(batch.0, Ordering::Release);
        }

        fn failed(&self, _batch: Batch, _error: &CommitError) {}
    }

    #[test]
    fn a_commit_begins_when_the_thread_that_appends_rests() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            directory: directory.path().to_owned(),
            max_disk: 1 << 28,
            keep_free: 0,
            commit_wait: Duration::ZERO,
            max_devices: 10,
            streams: vec![StreamOptions {
                name: "main".into(),
                max_bytes: 1 << 27,
                max_age: None,
                when_full: WhenFull::Refuse,
            }],
        };
        let clock = Arc::new(ManualClock::trusted());
        let log = TheLog::open(options, clock, Arc::new(Unobserved), None).unwrap().log;
        let heard = Arc::<Committed>::default();
        let mut producer = log.producer(heard.clone());
        let mut append = || {
            let record = NewRecord {
                stream: StreamId(0),
                received: crate::clock::Clock::now(&ManualClock::trusted()),
                identity: "a",
                route: "r",
                topic: "t",
                payload: b"1",
                qos: 1,
                retain: false,
                expiry: None,
                properties: &[],
            };
            producer.append(&[record]).unwrap().batch
        };
        rest();
        let first = append();
        // The writer would have begun long ago.
        let appended = Instant::now();
        while appended.elapsed() < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        let second = append();
        assert_eq!(first, second, "the first waits for the second");
        rest();
        while heard.0.load(Ordering::Acquire) < second.0 {
            assert!(appended.elapsed() < LONGEST / 2, "the rest did not end the wait");
            std::thread::yield_now();
        }
    }
}
