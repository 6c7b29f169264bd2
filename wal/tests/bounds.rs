//! Rotation, retention, and what happens at each bound.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_wal::{AppendError, BootId, OpenError, Settlement, StreamId, Timestamp, WhenFull};
use support::{Bench, MAIN, ManualClock, copy, files, open, open_at, options, stream};

const MIB: usize = 1 << 20;

fn small_files(directory: &std::path::Path, max_bytes: u64, when_full: WhenFull) -> forebay_wal::Options {
    let mut options = options(directory);
    options.max_disk = 128 << 20;
    options.streams = vec![stream("main", max_bytes, when_full)];
    options
}

/// Appends `mib` MiB, an eighth at a time.
fn pour(bench: &mut Bench, mib: usize) {
    for _ in 0..mib * 8 {
        bench.fill(4, MIB / 32);
    }
}

#[test]
fn files_rotate_and_are_unlinked_when_all_in_them_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(small_files(directory.path(), 100 << 20, WhenFull::Refuse));
    pour(&mut bench, 30);
    assert!(files(directory.path()).len() >= 3, "{:?}", files(directory.path()));
    let killed = open(small_files(
        &copy(directory.path(), &directory.path().join("killed")),
        100 << 20,
        WhenFull::Refuse,
    ));
    assert_eq!(killed.read_all().len(), 30 * 32);
    let records = bench.read_all();
    assert_eq!(records.len(), 30 * 32);
    assert!(records.windows(2).all(|pair| pair[0].id.offset.0 + 1 == pair[1].id.offset.0));
    bench.deliver(&records);
    support::until("only the active file is left", || files(directory.path()).len() == 1);
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.delivered, audit.waiting), (960, 960, 0));
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(small_files(directory.path(), 100 << 20, WhenFull::Refuse));
    assert!(bench.read_all().is_empty());
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn a_refusing_stream_refuses_at_its_bound_and_takes_more_when_the_cloud_took_some() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams = vec![stream("main", 10_000, WhenFull::Refuse)];
    let mut bench = open(options);
    let mut stored = 0;
    let record = [7; 500];
    let refused = loop {
        let new = bench.record("a", &record);
        match bench.producer.append(&[new]) {
            Ok(ticket) => bench.acks.wait(ticket.batch).unwrap(),
            Err(error) => break error,
        }
        stored += 1;
    };
    assert_eq!(refused, AppendError::StreamFull { stream: MAIN });
    assert!((10..20).contains(&stored));
    assert!(bench.log.status().streams[0].waiting_bytes <= 10_000);
    let records = bench.read_all();
    assert_eq!(records.len(), stored);
    bench.deliver(&records[..1]);
    bench.store("a", &record);
}

#[test]
fn a_dropping_stream_loses_its_oldest_block_and_the_ledger_knows() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(small_files(directory.path(), 4 << 20, WhenFull::DropOldest));
    pour(&mut bench, 40);
    let evicted = bench.log.stats().evicted.load(Ordering::Relaxed);
    assert!(evicted > 35 * 32 - 32, "{evicted}");
    bench.until("the bound holds", |log| log.status().streams[0].waiting_bytes <= 4 << 20);
    let audit = bench.log.audit().unwrap();
    assert!(audit.balances(), "{audit:?}");
    assert_eq!(audit.evicted + audit.waiting, 40 * 32);
    let records = bench.read_all();
    assert_eq!(records.len() as u64, audit.waiting);
    assert_eq!(records.last().unwrap().id.offset.0, 40 * 32 - 1);
    support::until("evicted files are unlinked", || files(directory.path()).len() <= 2);
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(small_files(directory.path(), 4 << 20, WhenFull::DropOldest));
    assert_eq!(bench.log.audit().unwrap(), audit);
}

#[test]
fn records_settled_or_in_flight_when_evicted_are_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams = vec![stream("main", 8_000, WhenFull::DropOldest)];
    let mut bench = open(options);
    for _ in 0..4 {
        bench.store("a", &[1; 1000]);
    }
    let records = bench.read_all();
    bench.deliver(&records[1..3]);
    for _ in 0..30 {
        bench.store("b", &[2; 1000]);
    }
    bench.deliver(&records[..1]);
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.delivered), (34, 2));
    assert!(audit.balances(), "{audit:?}");
    assert_eq!(bench.log.stats().late_settlements.load(Ordering::Relaxed), 1);
}

#[test]
fn a_record_that_was_evicted_after_it_died_is_among_the_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams = vec![stream("main", 8_000, WhenFull::DropOldest)];
    let mut bench = open(options);
    for _ in 0..2 {
        bench.store("a", &[1; 1000]);
    }
    let records = bench.read_all();
    let dead = Settlement::Dead {
        reason: "no-route",
        detail: String::new(),
    };
    // The first one keeps the second from being counted.
    bench.log.settle(MAIN, records[1].id.offset, dead);
    for _ in 0..30 {
        bench.store("b", &[2; 1000]);
    }
    let audit = bench.log.audit().unwrap();
    assert_eq!(audit.dead_lettered, 1);
    assert!(audit.balances(), "{audit:?}");
    let mut reader = bench.log.reader(StreamId::DEAD, forebay_wal::PartitionSet::ALL);
    assert_eq!(reader.read(usize::MAX).unwrap().len(), 1);
}

#[test]
fn what_was_settled_behind_an_evicted_record_is_counted_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams = vec![stream("main", 8_000, WhenFull::DropOldest)];
    let mut bench = open(options);
    for _ in 0..5 {
        bench.store("a", &[1; 1000]);
    }
    let records = bench.read_all();
    bench.deliver(&records[1..]);
    // Just enough to lose the first one.
    for _ in 0..7 {
        bench.store("b", &[2; 1000]);
    }
    let delivered = || {
        let lines = bench.log.ledger();
        lines.iter().map(|line| line.counts.delivered).sum::<u64>()
    };
    support::until("all four are in the ledger", || delivered() == 4);
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn dead_letters_over_their_bound_lose_no_more_than_they_must() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    let mut died = 0;
    // Ninety-five fit, and the next one is over by almost all of itself.
    let payload = vec![1; 705_500];
    let mut reader = bench.log.reader(MAIN, forebay_wal::PartitionSet::ALL);
    for _ in 0..99 {
        bench.store("a", &payload);
        for record in reader.read(usize::MAX).unwrap() {
            let dead = Settlement::Dead {
                reason: "payload-too-large",
                detail: String::new(),
            };
            bench.log.settle(MAIN, record.id.offset, dead);
            died += 1;
        }
    }
    bench.log.close().unwrap();
    drop((bench, reader));
    assert_eq!(died, 99);
    let bench = open(options(directory.path()));
    let mut letters = bench.log.reader(StreamId::DEAD, forebay_wal::PartitionSet::ALL);
    let mut kept = 0;
    loop {
        let read = letters.read(MIB).unwrap();
        if read.is_empty() {
            break;
        }
        kept += read.len();
    }
    assert!((94..=96).contains(&kept), "{kept}");
}

#[test]
fn max_disk_evicts_what_may_be_dropped_and_never_what_may_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.max_disk = 48 << 20;
    options.streams = vec![stream("main", 1 << 30, WhenFull::DropOldest)];
    let mut bench = open(options);
    pour(&mut bench, 100);
    assert!(bench.log.status().disk_bytes <= 48 << 20, "{:?}", bench.log.status());
    let audit = bench.log.audit().unwrap();
    assert!(audit.evicted > 0 && audit.balances(), "{audit:?}");
}

#[test]
fn max_disk_refuses_when_nothing_may_be_dropped_and_recovers_when_the_cloud_took_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.max_disk = 32 << 20;
    options.streams = vec![stream("main", 1 << 30, WhenFull::Refuse)];
    let mut bench = open(options);
    let payload = vec![3; MIB / 8];
    let mut stored = 0;
    for _ in 0..400 {
        let record = bench.record("a", &payload);
        match bench.producer.append(&[record]) {
            Ok(ticket) => stored += usize::from(bench.acks.wait(ticket.batch).is_ok()),
            Err(error) => {
                assert_eq!(error, AppendError::DiskFull);
                break;
            }
        }
    }
    assert!((100..256).contains(&stored), "{stored}");
    let why = bench.log.status().unavailable.unwrap();
    assert!(why.contains("gateway.max_disk is 32 MiB: raise it"), "{why}");
    let records = bench.read_all();
    assert_eq!(records.len(), stored);
    bench.deliver(&records);
    bench.until("there is room", |log| log.status().unavailable.is_none());
    bench.store("a", &payload);
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn what_is_beside_the_directory_counts_in_max_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.max_disk = 64 << 20;
    options.streams = vec![stream("main", 1 << 30, WhenFull::Refuse)];
    let mut bench = open(options);
    bench.store("a", b"before");
    for beside in [1 << 20, 24 << 20, 64 << 20] {
        bench.log.note_beside(beside);
        bench.until("it counts", |log| (beside..beside + (32 << 20)).contains(&log.status().disk_bytes));
    }
    let payload = vec![1; MIB];
    let record = bench.record("a", &payload);
    if let Ok(ticket) = bench.producer.append(&[record]) {
        assert!(bench.acks.wait(ticket.batch).is_err());
    }
    bench.until("it is full", |log| log.status().unavailable.is_some());
    bench.log.note_beside(0);
    bench.until("there is room", |log| log.status().unavailable.is_none());
    bench.store("a", b"after");
}

#[test]
fn dead_letters_are_bounded_and_do_not_enter_the_ledger_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(10, 100);
    for record in bench.read_all() {
        let dead = Settlement::Dead {
            reason: "topic-too-long",
            detail: "shorten it".into(),
        };
        bench.log.settle(MAIN, record.id.offset, dead);
    }
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(options(directory.path()));
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.dead_lettered, audit.waiting), (10, 10, 0));
    let letters = bench
        .log
        .reader(StreamId::DEAD, forebay_wal::PartitionSet::ALL)
        .read(usize::MAX)
        .unwrap();
    assert_eq!(letters.len(), 10);
    let letter = forebay_wal::DeadLetter::open(&letters[3]).unwrap();
    assert_eq!(
        (letter.reason.as_str(), letter.detail.as_str(), letter.id.offset.0),
        ("topic-too-long", "shorten it", 3)
    );
    assert_eq!(letter.payload[..8], 3_u64.to_le_bytes());
    assert_eq!((letters[3].identity.as_str(), letters[3].route.as_str()), ("device-3", "route"));
}

#[test]
fn records_older_than_max_age_or_their_own_expiry_are_expired_not_sent() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.streams[0].max_age = Some(Duration::from_secs(60));
    let mut bench = open(options);
    bench.store("a", b"old");
    let start = *bench.clock.0.lock().unwrap();
    let at = |ms: u64| Timestamp {
        wall_ms: start.wall_ms + ms,
        monotonic_ms: start.monotonic_ms + ms,
        ..start
    };
    bench.clock.set(at(50_000));
    let mut short = bench.record("a", b"short");
    short.expiry = Some(5);
    let ticket = bench.producer.append(&[short]).unwrap();
    bench.acks.wait(ticket.batch).unwrap();
    bench.store("a", b"fresh");
    bench.clock.set(at(61_000));
    let records = bench.read_all();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].payload, b"fresh"[..]);
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.expired, audit.waiting), (2, 1));
    assert!(audit.balances());
}

#[test]
fn a_clock_that_jumps_from_1970_to_now_expires_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(1000, 1, 5000, false);
    let mut limits = options(directory.path());
    limits.streams[0].max_age = Some(Duration::from_secs(60));
    let mut bench = open_at(limits.clone(), clock.clone());
    bench.store("a", b"1");
    clock.set(Timestamp {
        wall_ms: 1_800_000_000_000,
        boot: BootId(1),
        monotonic_ms: 6000,
        trusted: true,
    });
    assert_eq!(bench.read_all().len(), 1);
    bench.log.close().unwrap();
    drop(bench);
    let bench = open_at(limits, ManualClock::at(1_800_000_100_000, 2, 10, true));
    assert_eq!(bench.read_all().len(), 1);
    assert_eq!(bench.log.audit().unwrap().expired, 0);
}

#[test]
fn devices_beyond_max_devices_share_the_line_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.max_devices = 3;
    let mut bench = open(limits.clone());
    bench.fill(100, 10);
    let lines = bench.log.ledger();
    assert_eq!(lines.len(), 4);
    assert_eq!((lines[0].identity.as_str(), lines[0].counts.accepted), ("other", 70));
    assert_eq!((lines[1].identity.as_str(), lines[1].counts.accepted), ("device-0", 10));
    bench.log.close().unwrap();
    drop(bench);
    assert_eq!(open(limits).log.ledger(), lines);
}

#[test]
fn a_stream_that_holds_records_cannot_leave_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.store("a", b"1");
    bench.log.close().unwrap();
    drop(bench);
    let mut other = options(directory.path());
    other.streams = vec![stream("other", 1000, WhenFull::Refuse)];
    let clock = ManualClock::at(1, 1, 1, false);
    let error = forebay_wal::Log::open(other, clock, std::sync::Arc::new(support::Counting::default()), None).unwrap_err();
    assert!(
        matches!(error, OpenError::OrphanStream { ref name, waiting: 1 } if name == "main"),
        "{error}"
    );
}

#[test]
fn local_records_are_refused_at_their_bound_and_taken_again_when_they_were_trimmed() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    let payload = vec![1; MIB];
    let mut last = None;
    let refused = loop {
        let record = forebay_wal::NewRecord {
            stream: StreamId::LOCAL,
            ..bench.record("session", &payload)
        };
        match bench.producer.append(&[record]) {
            Ok(ticket) => {
                bench.acks.wait(ticket.batch).unwrap();
                last = Some(ticket.offset);
            }
            Err(error) => break error,
        }
        assert!(last.unwrap().0 < 100, "nothing bounds the local stream");
    };
    assert_eq!(refused, AppendError::LocalFull { limit: 64 << 20 });
    bench.store("a", b"other streams go on");
    bench.log.settle(StreamId::LOCAL, last.unwrap(), Settlement::Delivered);
    let deadline = std::time::Instant::now() + support::DEADLINE;
    loop {
        let record = forebay_wal::NewRecord {
            stream: StreamId::LOCAL,
            ..bench.record("session", &payload)
        };
        if bench.producer.append(&[record]).is_ok() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the local stream stays full");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn dead_letters_that_pin_files_go_before_records_at_max_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.max_disk = 48 << 20;
    limits.streams = vec![
        stream("main", 1 << 30, WhenFull::Refuse),
        stream("bulk", 1 << 30, WhenFull::DropOldest),
    ];
    let mut bench = open(limits);
    let mut reader = bench.log.reader(MAIN, forebay_wal::PartitionSet::ALL);
    let bulk = bench.log.stream("bulk").unwrap();
    let kept = forebay_wal::NewRecord {
        stream: bulk,
        ..bench.record("b", b"the newest of its stream")
    };
    bench.producer.append(&[kept]).unwrap();
    for round in 0..100 {
        pour(&mut bench, 1);
        for (nth, record) in reader.read(usize::MAX).unwrap().into_iter().enumerate() {
            let settlement = if nth == 0 {
                Settlement::Dead {
                    reason: "no-route",
                    detail: String::new(),
                }
            } else {
                Settlement::Delivered
            };
            bench.log.settle(MAIN, record.id.offset, settlement);
        }
        assert_eq!(bench.log.status().unavailable, None, "round {round}");
    }
    assert!(bench.log.status().disk_bytes <= 48 << 20, "{:?}", bench.log.status());
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.evicted, audit.waiting), (0, 1), "{audit:?}");
    assert!(audit.balances());
}

#[test]
fn suspended_records_that_pin_files_are_dropped_by_their_streams_policy_at_max_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.max_disk = 48 << 20;
    limits.streams = vec![stream("main", 1 << 30, WhenFull::DropOldest)];
    let mut bench = open(limits);
    let mut reader = bench.log.reader(MAIN, forebay_wal::PartitionSet::ALL);
    let key = forebay_wal::SuspensionKey {
        stream: MAIN,
        route: "route".into(),
        identity: "suspended".into(),
    };
    bench.log.suspend(key, forebay_wal::Offset(0));
    for round in 0..100 {
        bench.store("suspended", &vec![b'x'; MIB / 2]);
        pour(&mut bench, 1);
        for record in reader.read(usize::MAX).unwrap() {
            bench.log.settle(MAIN, record.id.offset, Settlement::Delivered);
        }
        assert_eq!(bench.log.status().unavailable, None, "round {round}");
    }
    assert!(bench.log.status().disk_bytes <= 48 << 20, "{:?}", bench.log.status());
    let audit = bench.log.audit().unwrap();
    assert!(audit.evicted > 0 && audit.waiting > 0, "{audit:?}");
    assert_eq!(audit.evicted + audit.waiting, 100, "{audit:?}");
    assert!(audit.balances());
}

#[test]
fn records_that_expire_behind_one_in_flight_cost_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.streams[0].max_age = Some(Duration::from_secs(60));
    let mut bench = open(limits);
    let first = bench.store("a", b"in flight");
    let mut reader = bench.log.reader(MAIN, forebay_wal::PartitionSet::ALL);
    assert_eq!(reader.read(1 << 20).unwrap().len(), 1);
    let mut last = None;
    for _ in 0..40_000 {
        last = Some(bench.append("a", b"too old when it is read").batch);
    }
    bench.acks.wait(last.unwrap()).unwrap();
    let now = forebay_wal::Clock::now(&*bench.clock);
    bench.clock.set(Timestamp {
        monotonic_ms: now.monotonic_ms + 61_000,
        ..now
    });
    let woken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = woken.clone();
    bench.log.on_commit(MAIN, Box::new(move || flag.store(true, Ordering::SeqCst)));
    assert!(reader.read(1 << 20).unwrap().is_empty());
    assert!(bench.log.unsettled(MAIN) <= 16_384, "{}", bench.log.unsettled(MAIN));
    assert!(bench.log.audit().unwrap().balances());
    woken.store(false, Ordering::SeqCst);
    bench.log.settle(MAIN, first, Settlement::Delivered);
    support::until("the reader may go on", || woken.load(Ordering::SeqCst));
    assert!(reader.read(1 << 20).unwrap().is_empty());
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.delivered, audit.expired, audit.waiting), (1, 40_000, 0), "{audit:?}");
}
