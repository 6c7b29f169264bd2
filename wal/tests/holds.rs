//! Suspended pairs of route and device.
#![allow(clippy::unwrap_used)]

mod support;

use forebay_wal::{Offset, PartitionSet, Settlement, SuspensionKey};
use support::{Bench, MAIN, copy, open, options};

fn key(identity: &str) -> SuspensionKey {
    SuspensionKey {
        stream: MAIN,
        route: "route".into(),
        identity: identity.into(),
    }
}

fn offsets(records: &[forebay_wal::Record]) -> Vec<u64> {
    records.iter().map(|record| record.id.offset.0).collect()
}

/// `count` records, `bad` and `good` in turn.
fn turns(bench: &mut Bench, count: usize) {
    for n in 0..count {
        bench.store(if n % 2 == 0 { "bad" } else { "good" }, b"x");
    }
}

#[test]
fn a_suspended_pair_waits_while_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    turns(&mut bench, 6);
    let mut reader = bench.log.reader(MAIN, PartitionSet::ALL);
    let records = reader.read(usize::MAX).unwrap();
    bench.log.suspend(key("bad"), records[0].id.offset);
    for record in records.iter().filter(|record| record.identity == "good") {
        bench.log.settle(MAIN, record.id.offset, Settlement::Delivered);
    }
    turns(&mut bench, 4);
    let next = reader.read(usize::MAX).unwrap();
    assert!(next.iter().all(|record| record.identity == "good"));
    bench.deliver(&next);
    assert_eq!(bench.log.suspensions(MAIN)[0].next, Offset(0));
    assert_eq!(offsets(&bench.log.read_suspended(&key("bad"), 10).unwrap()), [0, 2, 4, 6, 8]);
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.delivered, audit.waiting), (5, 5));
    assert!(audit.balances());
    assert!(!bench.log.resume(&key("bad")));
}

#[test]
fn a_suspension_survives_a_kill_with_its_progress() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    turns(&mut bench, 10);
    let mut reader = bench.log.reader(MAIN, PartitionSet::ALL);
    let records = reader.read(usize::MAX).unwrap();
    bench.log.suspend(key("bad"), Offset(0));
    let good: Vec<_> = records.into_iter().filter(|record| record.identity == "good").collect();
    bench.deliver(&good);
    let suspended = bench.log.read_suspended(&key("bad"), 2).unwrap();
    assert_eq!(offsets(&suspended), [0, 2]);
    bench.deliver(&suspended);
    bench.store("good", b"last");
    let after = open(options(&copy(directory.path(), &directory.path().join("killed"))));
    assert_eq!(after.log.suspensions(MAIN)[0].next, Offset(4));
    let audit = after.log.audit().unwrap();
    assert_eq!((audit.delivered, audit.waiting), (7, 4), "{audit:?}");
    assert!(audit.balances());
    assert_eq!(offsets(&after.read_all()), [10]);
    let suspended = after.log.read_suspended(&key("bad"), 10).unwrap();
    assert_eq!(offsets(&suspended), [4, 6, 8]);
    after.deliver(&suspended);
    assert!(after.log.resume(&key("bad")));
    assert!(after.log.suspensions(MAIN).is_empty());
    assert!(after.log.audit().unwrap().balances());
}

#[test]
fn an_ended_suspension_counts_nothing_twice_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    // Both devices in one partition, so that the other one holds the partition's progress back.
    let other = (0..)
        .map(|n| format!("other-{n}"))
        .find(|name| support::partition(name) == support::partition("bad"))
        .unwrap();
    bench.store(&other, b"stays");
    bench.store("bad", b"1");
    bench.store("bad", b"2");
    let records = bench.read_all();
    assert_eq!(records.len(), 3);
    bench.log.suspend(key("bad"), Offset(1));
    bench.deliver(&bench.log.read_suspended(&key("bad"), 10).unwrap());
    assert!(bench.log.resume(&key("bad")));
    bench.store("bad", b"3");
    let after = open(options(&copy(directory.path(), &directory.path().join("killed"))));
    let audit = after.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.delivered, audit.waiting), (4, 2, 2), "{audit:?}");
    let records = after.read_all();
    assert_eq!(offsets(&records), [0, 3]);
    after.deliver(&records);
    let audit = after.log.audit().unwrap();
    assert_eq!((audit.delivered, audit.waiting), (4, 0));
    assert!(audit.balances());
}

#[test]
fn probing_a_suspended_pair_again_and_again_costs_no_more_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    turns(&mut bench, 60);
    let mut reader = bench.log.reader(MAIN, PartitionSet::ALL);
    bench.log.suspend(key("bad"), Offset(0));
    bench.deliver(&reader.read(usize::MAX).unwrap());
    let first = offsets(&bench.log.read_suspended(&key("bad"), 2).unwrap());
    for _ in 0..10 {
        assert_eq!(offsets(&bench.log.read_suspended(&key("bad"), 2).unwrap()), first);
    }
    assert_eq!(bench.log.unsettled(MAIN), 2, "each look at a pair registers more of it");
}
