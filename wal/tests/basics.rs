//! Append, commit, read, settle, reopen.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use forebay_wal::{PartitionSet, Settled, Settlement};
use support::{MAIN, copy, open, options};

#[test]
fn reopening_keeps_every_acked_record_with_all_its_fields_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    let received = bench.clock.0.lock().unwrap().to_owned();
    let mut record = bench.record("device-7", b"\x00\xffpayload");
    record.qos = 2;
    record.retain = true;
    record.expiry = Some(3600);
    record.properties = &[1, 1];
    let ticket = bench.producer.append(&[record]).unwrap();
    bench.acks.wait(ticket.batch).unwrap();
    bench.fill(1000, 100);
    let epoch = bench.log.epoch();
    bench.log.close().unwrap();
    drop(bench);

    let bench = open(options(directory.path()));
    assert!(bench.report.clean);
    assert_eq!(bench.report.recovered, 1001);
    let records = bench.read_all();
    assert_eq!(records.len(), 1001);
    let first = &records[0];
    assert_eq!((first.id.epoch, first.id.stream, first.id.offset), (epoch, MAIN, ticket.offset));
    assert_eq!(
        (first.identity.as_str(), first.route.as_str(), first.topic.as_str()),
        ("device-7", "route", "devices/x/telemetry")
    );
    assert_eq!(first.payload, b"\x00\xffpayload"[..]);
    assert_eq!(
        (first.qos, first.retain, first.expiry, &first.properties[..]),
        (2, true, Some(3600), &[1, 1][..])
    );
    assert_eq!(first.received, received);
    for (n, record) in records[1..].iter().enumerate() {
        assert_eq!(record.payload[..8], (n as u64).to_le_bytes());
        assert_eq!(record.id.offset.0, n as u64 + 1);
    }
}

#[test]
fn a_kill_loses_nothing_that_was_acked() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(500, 300);
    let killed = copy(directory.path(), &directory.path().join("killed"));
    let after = open(options(&killed));
    assert!(!after.report.clean);
    let read = after.read_all();
    assert_eq!(read.len(), 500);
    assert!(
        read.iter().all(|record| record.id.epoch == bench.log.epoch()),
        "a record changed its id"
    );
    assert!(after.log.audit().unwrap().balances());
}

#[test]
fn delivered_records_are_not_read_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(100, 50);
    let records = bench.read_all();
    bench.deliver(&records[..60]);
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(options(directory.path()));
    let again = bench.read_all();
    assert_eq!(again.len(), 40);
    assert_eq!(again[0].id.offset.0, 60);
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.delivered, audit.waiting), (100, 60, 40));
    assert!(audit.balances());
}

#[test]
fn settled_records_are_durable_within_the_promised_time_without_new_records() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(10, 50);
    let commits = bench.log.stats().commits.load(Ordering::Relaxed);
    bench.deliver(&bench.read_all());
    bench.until("progress is committed", |log| log.stats().commits.load(Ordering::Relaxed) > commits);
    let after = open(options(&copy(directory.path(), &directory.path().join("killed"))));
    assert!(after.read_all().is_empty());
    assert_eq!(after.log.audit().unwrap().delivered, 10);
}

#[test]
fn a_record_settles_once_and_the_first_reason_wins() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    let offset = bench.store("a", b"1");
    assert_eq!(bench.read_all().len(), 1);
    assert_eq!(bench.log.settle(MAIN, offset, Settlement::Expired), Settled::First);
    assert_eq!(bench.log.settle(MAIN, offset, Settlement::Delivered), Settled::Late);
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.expired, audit.delivered), (1, 0));
    assert_eq!(bench.log.stats().late_settlements.load(Ordering::Relaxed), 1);
}

#[test]
fn acks_beyond_a_gap_are_repeated_after_a_kill_and_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    for _ in 0..10 {
        bench.store("same", b"x");
    }
    let records = bench.read_all();
    bench.deliver(&records[5..]);
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.delivered, audit.waiting), (5, 5));
    assert!(audit.balances());
    bench.store("same", b"y");
    let after = open(options(&copy(directory.path(), &directory.path().join("killed"))));
    assert_eq!(after.read_all().len(), 11);
    let audit = after.log.audit().unwrap();
    assert_eq!((audit.delivered, audit.waiting), (0, 11));
    assert!(audit.balances());
}

#[test]
fn rewinding_yields_what_is_not_settled_again_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(20, 10);
    let mut reader = bench.log.reader(MAIN, PartitionSet::ALL);
    let first = reader.read(usize::MAX).unwrap();
    assert_eq!(first.len(), 20);
    for record in first.iter().step_by(2) {
        bench.log.settle(MAIN, record.id.offset, Settlement::Delivered);
    }
    assert!(reader.read(usize::MAX).unwrap().is_empty());
    reader.rewind();
    let again: Vec<u64> = reader.read(usize::MAX).unwrap().iter().map(|record| record.id.offset.0).collect();
    assert_eq!(again, (0..20).filter(|n| n % 2 == 1).collect::<Vec<u64>>());
}

#[test]
fn readers_of_different_partitions_share_a_stream_without_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(200, 10);
    let mut even = bench.log.reader(MAIN, PartitionSet(0x5555_5555_5555_5555));
    let mut odd = bench.log.reader(MAIN, PartitionSet(0xaaaa_aaaa_aaaa_aaaa));
    let mut offsets: Vec<u64> = Vec::new();
    for reader in [&mut even, &mut odd] {
        let records = reader.read(usize::MAX).unwrap();
        assert!(records.windows(2).all(|pair| pair[0].id.offset < pair[1].id.offset));
        offsets.extend(records.iter().map(|record| record.id.offset.0));
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..200).collect::<Vec<u64>>());
}
