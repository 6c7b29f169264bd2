//! What a person puts back: dead letters and settled records.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use forebay_wal::{
    CommittedBatch, DeadLetter, Log, Offset, Opened, PartitionSet, Record, RequeueError, Settlement, StreamId, Tap, WhenFull,
};
use support::{Acks, Bench, Counting, MAIN, ManualClock, open, options, stream};

/// Stores `count` records of which every third becomes a dead letter and the rest is delivered.
fn with_letters(bench: &mut Bench, count: usize) -> Vec<Record> {
    bench.fill(count, 100);
    let records = bench.read_all();
    for (nth, record) in records.iter().enumerate() {
        let settlement = if nth % 3 == 0 {
            Settlement::Dead {
                reason: "topic-too-long",
                detail: format!("number {nth}"),
            }
        } else {
            Settlement::Delivered
        };
        bench.log.settle(MAIN, record.offset, settlement);
    }
    bench.until("the letters are stored", |log| letters(log).len() == count.div_ceil(3));
    records.into_iter().step_by(3).collect()
}

fn letters(log: &Log) -> Vec<Record> {
    let mut reader = log.reader(StreamId::DEAD, PartitionSet::ALL);
    let mut all = Vec::new();
    loop {
        let records = reader.read(1 << 20).unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(records);
    }
}

fn offsets(records: &[Record]) -> Vec<Offset> {
    records.iter().map(|record| record.offset).collect()
}

#[test]
fn a_requeued_letter_waits_again_under_its_first_id_and_is_no_letter_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    let dead = with_letters(&mut bench, 30);
    let stored = letters(&bench.log);
    assert_eq!(stored.len(), 10);
    let chosen: Vec<Offset> = offsets(&stored).into_iter().step_by(2).collect();
    let done = bench.log.requeue(&chosen).unwrap();
    assert_eq!((done.requeued, done.kept.len()), (5, 0));
    // A second time there is nothing to put back.
    let again = bench.log.requeue(&chosen).unwrap();
    assert_eq!((again.requeued, again.kept.len()), (0, 5));
    assert!(again.kept.iter().all(|(_, reason)| *reason == "not-found"));
    let check = |bench: &Bench| {
        let waiting = bench.read_all();
        let audit = bench.log.audit().unwrap();
        assert_eq!(
            (audit.accepted, audit.requeued, audit.waiting, audit.dead_lettered),
            (30, 5, 5, 10),
            "{audit:?}"
        );
        assert!(audit.balances());
        for (record, first) in waiting.iter().zip(dead.iter().step_by(2)) {
            assert_eq!(
                (record.id, &record.payload, &record.topic),
                (first.id, &first.payload, &first.topic)
            );
            assert_eq!((&record.identity, &record.route), (&first.identity, &first.route));
            assert!(record.is_put_back() && record.offset > first.offset);
        }
        let left = letters(&bench.log);
        let expected: Vec<_> = stored.iter().skip(1).step_by(2).cloned().collect();
        assert_eq!(left, expected);
        assert_eq!(DeadLetter::open(&left[0]).unwrap().id, dead[1].id);
    };
    check(&bench);
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(options(directory.path()));
    check(&bench);
    bench.deliver(&bench.read_all());
    bench.until("they are delivered", |log| log.audit().unwrap().waiting == 0);
    assert!(bench.log.audit().unwrap().balances());
    // The rest in front and behind: nothing of the letters is left, and the next one is found.
    let rest = offsets(&letters(&bench.log));
    assert_eq!(bench.log.drop_dead(&rest).unwrap(), 5);
    assert!(letters(&bench.log).is_empty());
    assert_eq!(bench.log.drop_dead(&rest).unwrap(), 0);
}

#[test]
fn dropped_letters_stay_dropped_and_their_files_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.max_disk = 128 << 20;
    let mut bench = open(limits.clone());
    for round in 1..=12 {
        bench.fill(8, 1 << 17);
        let records = bench.read_all();
        for record in &records {
            let detail = String::new();
            bench.log.settle(MAIN, record.offset, Settlement::Dead { reason: "x", detail });
        }
        bench.until("they are letters", |log| letters(log).len() == round * 8);
    }
    assert!(support::files(directory.path()).len() > 1);
    let all = offsets(&letters(&bench.log));
    let (keep, drop_now): (Vec<Offset>, Vec<Offset>) = all.iter().partition(|offset| offset.0 == 90);
    assert_eq!(bench.log.drop_dead(&drop_now).unwrap(), 95);
    assert_eq!(offsets(&letters(&bench.log)), keep);
    bench.log.close().unwrap();
    drop(bench);
    let mut bench = open(limits);
    assert_eq!(offsets(&letters(&bench.log)), keep);
    assert_eq!(bench.log.drop_dead(&keep).unwrap(), 1);
    bench.store("a", b"1");
    support::until("only the active file is left", || support::files(directory.path()).len() == 1);
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn what_cannot_be_put_back_stays_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = options(directory.path());
    limits.streams = vec![stream("main", 9000, WhenFull::Refuse), stream("gone", 1 << 20, WhenFull::Refuse)];
    let mut bench = open(limits.clone());
    let gone = bench.log.stream("gone").unwrap();
    let record = forebay_wal::NewRecord {
        stream: gone,
        ..bench.record("a", b"1")
    };
    let ticket = bench.producer.append(&[record]).unwrap();
    bench.acks.wait(ticket.batch).unwrap();
    let mut reader = bench.log.reader(gone, PartitionSet::ALL);
    let found = reader.read(1000).unwrap();
    let dead = |detail: &str| Settlement::Dead {
        reason: "x",
        detail: detail.into(),
    };
    bench.log.settle(gone, found[0].offset, dead("of a stream that goes"));
    let big = bench.store("a", &[7; 5000]);
    let records = bench.read_all();
    bench.log.settle(MAIN, records[0].offset, dead("too large to go back"));
    bench.until("they are letters", |log| letters(log).len() == 2);
    bench.store("a", &[8; 6000]);
    bench.log.close().unwrap();
    drop((bench, reader));
    limits.streams.pop();
    let bench = open(limits);
    let all = offsets(&letters(&bench.log));
    assert_eq!(all.len(), 2);
    let mut asked = all.clone();
    asked.push(Offset(77));
    let done = bench.log.requeue(&asked).unwrap();
    assert_eq!(done.requeued, 0);
    let reasons: BTreeSet<&str> = done.kept.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, BTreeSet::from(["not-found", "stream-full", "stream-gone"]));
    assert_eq!(offsets(&letters(&bench.log)), all);
    let replayed = bench.log.replay(MAIN, &[big, Offset(1), Offset(99)]).unwrap();
    assert_eq!(
        replayed.kept.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(),
        ["waiting", "not-found", "stream-full"]
    );
    bench.log.close().unwrap();
    assert_eq!(bench.log.requeue(&all), Err(RequeueError::Closed));
}

#[test]
fn settled_records_that_are_still_there_can_be_replayed_and_local_subscribers_do_not_see_them_twice() {
    struct Seen(Arc<Mutex<Vec<Record>>>);
    impl Tap for Seen {
        fn committed(&mut self, batch: Arc<CommittedBatch>) {
            self.0.lock().unwrap().extend(batch.records());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let clock = ManualClock::at(1_700_000_000_000, 1, 1000, true);
    let tap: Box<dyn Tap> = Box::new(Seen(seen.clone()));
    let Opened { log, report } = Log::open(options(directory.path()), clock.clone(), Arc::new(Counting::default()), Some(tap)).unwrap();
    let acks = Arc::new(Acks::default());
    let producer = log.producer(acks.clone());
    let mut bench = Bench {
        log,
        report,
        acks,
        producer,
        clock,
    };
    bench.fill(10, 100);
    let records = bench.read_all();
    bench.deliver(&records);
    bench.until("all is settled", |log| log.unsettled(MAIN) == 0);
    let done = bench.log.replay(MAIN, &offsets(&records)).unwrap();
    assert_eq!((done.requeued, done.kept.len()), (10, 0));
    let again = bench.read_all();
    let ids = |records: &[Record]| records.iter().map(|record| record.id).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&records));
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.requeued, audit.delivered, audit.waiting), (10, 10, 10, 10));
    assert_eq!(ids(&seen.lock().unwrap()), ids(&records));
    assert_eq!(bench.log.replay(MAIN, &offsets(&again)).unwrap().requeued, 0, "they wait");
}
