//! Who hears of a commit, when and in what order; the checkpoint behind the log.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay_wal::{
    AppendError, Batch, Checkpoint, CommitError, CommitListener, CommittedBatch, Log, Offset, Opened, Record, Settled, Settlement,
    StreamId, Tap,
};
use support::{Acks, Counting, MAIN, ManualClock, open, options};

/// What happened, in order.
type Trace = Arc<Mutex<Vec<&'static str>>>;

struct Listener(Trace);

impl CommitListener for Listener {
    fn committed(&self, _batch: Batch) {
        self.0.lock().unwrap().push("ack");
    }
    fn failed(&self, _batch: Batch, _error: &CommitError) {
        self.0.lock().unwrap().push("failed");
    }
}

struct Fanout(Trace, Arc<Mutex<Vec<Record>>>);

impl Tap for Fanout {
    fn committed(&mut self, batch: Arc<CommittedBatch>) {
        self.0.lock().unwrap().push("tap");
        self.1.lock().unwrap().extend(batch.records());
    }
}

#[test]
fn acks_come_first_then_the_tap_then_the_readers() {
    let directory = tempfile::tempdir().unwrap();
    let trace = Trace::default();
    let tapped = Arc::new(Mutex::new(Vec::new()));
    let clock = ManualClock::at(1_700_000_000_000, 1, 1, true);
    let counting = Arc::new(Counting::default());
    let tap = Box::new(Fanout(trace.clone(), tapped.clone()));
    let Opened { log, .. } = Log::open(options(directory.path()), clock, counting.clone(), Some(tap)).unwrap();
    let woken = trace.clone();
    log.on_commit(MAIN, Box::new(move || woken.lock().unwrap().push("wake")));
    let mut producer = log.producer(Arc::new(Listener(trace.clone())));
    let bench = open(options(&directory.path().join("other")));
    let both = [bench.record("a", b"1"), bench.record("b", b"2")];
    producer.append(&both).unwrap();
    support::until("all have heard", || trace.lock().unwrap().len() == 3);
    assert_eq!(*trace.lock().unwrap(), ["ack", "tap", "wake"], "each hears once of a batch");
    let tapped = tapped.lock().unwrap();
    assert_eq!(
        tapped.iter().map(|record| record.payload.to_vec()).collect::<Vec<_>>(),
        [b"1", b"2"]
    );
    assert_eq!((tapped[1].id.offset, tapped[1].id.epoch), (Offset(1), log.epoch()));
    assert_eq!(counting.0.load(Ordering::Relaxed), 2);
}

#[test]
fn records_of_one_call_are_taken_all_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.streams = vec![support::stream("main", 1000, forebay_wal::WhenFull::Refuse)];
    let mut bench = open(limits);
    let payload = [0; 300];
    let record = bench.record("a", &payload);
    assert_eq!(bench.producer.append(&[record; 3]), Err(AppendError::StreamFull { stream: MAIN }));
    let unknown = forebay_wal::NewRecord {
        stream: StreamId(9),
        ..record
    };
    assert_eq!(
        bench.producer.append(&[record, unknown]),
        Err(AppendError::UnknownStream { stream: StreamId(9) })
    );
    let huge = vec![0; 5 << 20];
    let too_large = forebay_wal::NewRecord { payload: &huge, ..record };
    assert!(matches!(
        bench.producer.append(&[record, too_large]),
        Err(AppendError::TooLarge { .. })
    ));
    assert_eq!(bench.log.status().streams[0].waiting, 0);
    let ticket = bench.producer.append(&[record; 2]).unwrap();
    bench.acks.wait(ticket.batch).unwrap();
    assert_eq!(ticket.offset, Offset(0));
    assert_eq!(bench.read_all().len(), 2);
}

#[test]
fn commit_wait_gathers_company_and_enough_bytes_cut_it_short() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.commit_wait = Duration::from_millis(300);
    let mut bench = open(limits);
    let before = bench.log.stats().commits.load(Ordering::Relaxed);
    let started = Instant::now();
    // Two at once: a lone one would not wait.
    let both = [bench.record("a", b"1"), bench.record("b", b"2")];
    let ticket = bench.producer.append(&both).unwrap();
    bench.acks.wait(ticket.batch).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(bench.log.stats().commits.load(Ordering::Relaxed), before + 1);
    let mut slow = options(&directory.path().join("slow"));
    slow.commit_wait = Duration::from_secs(3600);
    let mut bench = open(slow);
    let ticket = bench.append("a", &vec![0; 2 << 20]);
    bench.acks.wait(ticket.batch).unwrap();
    bench.append("a", b"pending at close");
    bench.log.close().unwrap();
    assert_eq!(bench.producer.append(&[]), Err(AppendError::Closed));
}

#[test]
fn many_producers_are_all_acked_and_each_keeps_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(options(directory.path()));
    let stored = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (log, clock, stored) = (bench.log.clone(), bench.clock.clone(), &stored);
            scope.spawn(move || {
                let acks = Arc::new(Acks::default());
                let mut producer = log.producer(acks.clone());
                let identity = format!("worker-{worker}");
                for n in 0..500_u64 {
                    let payload = n.to_le_bytes();
                    let record = forebay_wal::NewRecord {
                        stream: MAIN,
                        received: forebay_wal::Clock::now(&*clock),
                        identity: &identity,
                        route: "route",
                        topic: "t",
                        payload: &payload,
                        qos: 1,
                        retain: false,
                        expiry: None,
                        properties: &[],
                    };
                    let ticket = producer.append(&[record]).unwrap();
                    if n % 50 == 49 {
                        acks.wait(ticket.batch).unwrap();
                        stored.fetch_add(50, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(stored.load(Ordering::Relaxed), 4000);
    let records = bench.read_all();
    assert_eq!(records.len(), 4000);
    for worker in 0..8 {
        let identity = format!("worker-{worker}");
        let own: Vec<u64> = records
            .iter()
            .filter(|record| record.identity == identity)
            .map(|record| u64::from_le_bytes(record.payload[..8].try_into().unwrap()))
            .collect();
        assert_eq!(own, (0..500).collect::<Vec<u64>>());
    }
}

#[test]
fn the_local_stream_is_trimmed_by_settling_and_read_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    let mut last = None;
    for n in 0..10_u8 {
        let payload = [n];
        let record = forebay_wal::NewRecord {
            stream: StreamId::LOCAL,
            route: "",
            ..bench.record("a", &payload)
        };
        last = Some(bench.producer.append(&[record]).unwrap());
    }
    bench.acks.wait(last.unwrap().batch).unwrap();
    assert_eq!(bench.log.settle(StreamId::LOCAL, Offset(3), Settlement::Delivered), Settled::First);
    assert_eq!(bench.log.settle(StreamId::LOCAL, Offset(2), Settlement::Delivered), Settled::Late);
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(options(directory.path()));
    let records = bench
        .log
        .reader(StreamId::LOCAL, forebay_wal::PartitionSet::ALL)
        .read(usize::MAX)
        .unwrap();
    assert_eq!(
        records.iter().map(|record| record.payload[0]).collect::<Vec<_>>(),
        [4, 5, 6, 7, 8, 9]
    );
    assert_eq!(
        bench.log.audit().unwrap(),
        forebay_wal::Audit::default(),
        "internal streams are outside the ledger"
    );
}

#[test]
fn a_snapshot_of_a_checkpoint_is_read_in_order_while_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&directory.path().join("state.redb")).unwrap();
    let write = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
    checkpoint
        .apply(&[write("c", "1"), write("a", "1"), write("b", "1"), write("d", "1")], Offset(1))
        .unwrap();
    let snapshot = checkpoint.snapshot().unwrap();
    checkpoint
        .apply(&[write("b", "2"), write("bb", "2"), (b"c".to_vec(), None)], Offset(2))
        .unwrap();
    let read = |snapshot: &forebay_wal::Snapshot| {
        let mut seen = Vec::new();
        snapshot
            .visit_from(b"b", |key, value| {
                seen.push(format!("{}{}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
                key < b"c".as_slice()
            })
            .unwrap();
        seen
    };
    assert_eq!(read(&snapshot), ["b1", "c1"]);
    assert_eq!(snapshot.value(b"b").unwrap(), Some(b"1".to_vec()));
    assert_eq!(read(&checkpoint.snapshot().unwrap()), ["b2", "bb2", "d1"]);
}

#[test]
fn a_checkpoint_keeps_what_was_applied_and_how_far() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.applied(), Offset(0));
    checkpoint
        .apply(
            &[(b"b".to_vec(), Some(b"2".to_vec())), (b"a".to_vec(), Some(b"1".to_vec()))],
            Offset(5),
        )
        .unwrap();
    checkpoint
        .apply(&[(b"b".to_vec(), None), (b"c".to_vec(), Some(b"3".to_vec()))], Offset(9))
        .unwrap();
    drop(checkpoint);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.applied(), Offset(9));
    let mut entries = Vec::new();
    checkpoint
        .for_each(|key, value| entries.push((key.to_vec(), value.to_vec())))
        .unwrap();
    assert_eq!(entries, [(b"a".to_vec(), b"1".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
    assert_eq!(checkpoint.value(b"a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(checkpoint.value(b"b").unwrap(), None);
    std::fs::write(directory.path().join("bad"), b"no database").unwrap();
    assert!(Checkpoint::open(&directory.path().join("bad")).is_err());
}

#[test]
fn dropping_the_last_handle_inside_a_listener_does_not_hang() {
    struct Holder(Mutex<Option<Log>>, AtomicUsize);
    impl CommitListener for Holder {
        fn committed(&self, _batch: Batch) {
            drop(self.0.lock().unwrap().take());
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        fn failed(&self, _batch: Batch, _error: &CommitError) {}
    }
    let directory = tempfile::tempdir().unwrap();
    let bench = open(options(directory.path()));
    let holder = Arc::new(Holder(Mutex::new(None), AtomicUsize::new(0)));
    let mut producer = bench.log.producer(holder.clone());
    let payload = [1];
    let record = bench.record("a", &payload);
    *holder.0.lock().unwrap() = Some(bench.log.clone());
    let support::Bench { log, producer: other, .. } = bench;
    let received = record.received;
    drop((log, other));
    producer
        .append(&[forebay_wal::NewRecord {
            received,
            identity: "a",
            payload: &[1],
            ..record
        }])
        .unwrap();
    support::until("the listener was called", || holder.1.load(Ordering::SeqCst) == 1);
    support::until("the directory is free again", || {
        Log::open(
            options(directory.path()),
            ManualClock::at(1, 1, 1, false),
            Arc::new(Counting::default()),
            None,
        )
        .is_ok()
    });
}

#[test]
fn a_lone_record_on_an_idle_log_does_not_wait_for_company_and_others_do() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.commit_wait = Duration::from_secs(3600);
    let mut bench = open(limits);
    bench.store("a", b"alone");
    // Not idle any more, so these wait for the close, which commits them together.
    bench.append("a", b"one");
    bench.append("b", b"two");
    bench.log.close().unwrap();
    assert_eq!(bench.log.stats().commits.load(Ordering::Relaxed), 2);
    assert_eq!(bench.read_all().len(), 3);
}

#[test]
fn a_listener_hears_of_a_batch_once_for_a_producer_and_its_clones() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(options(directory.path()));
    let trace = Trace::default();
    let mut producers = vec![bench.log.producer(Arc::new(Listener(trace.clone())))];
    producers.extend(vec![producers[0].clone(); 3]);
    // Takes part, so that the batch waits for all of them.
    forebay_wal::rest();
    support::until("four producers are in one batch", || {
        trace.lock().unwrap().clear();
        let record = bench.record("a", b"1");
        let batches: Vec<_> = producers
            .iter_mut()
            .map(|producer| producer.append(&[record]).unwrap().batch)
            .collect();
        forebay_wal::rest();
        let mut count = batches.clone();
        count.dedup();
        support::until("they are committed", || trace.lock().unwrap().len() >= count.len());
        assert_eq!(*trace.lock().unwrap(), vec!["ack"; count.len()]);
        count.len() == 1
    });
}
