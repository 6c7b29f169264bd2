//! Every single moment of a segment's life at which the power can go, one after the other.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Fault, Omission, SimDisk};
use super::model::payload;
use crate::clock::Clock;
use crate::commit::writer::Writer;
use crate::error::CommitError;
use crate::listener::CommitListener;
use crate::log::Log;
use crate::options::{Options, StreamOptions, WhenFull};
use crate::record::{Batch, NewRecord, Offset, PartitionSet, Settlement, StreamId};
use crate::recovery::open::{Prepared, prepare};
use crate::sync::lock;
use crate::testing::{ManualClock, Unobserved};

#[derive(Debug, Default)]
struct Deaf;

impl CommitListener for Deaf {
    fn committed(&self, _batch: Batch) {}
    fn failed(&self, _batch: Batch, _error: &CommitError) {}
}

/// A log of small segments.
pub(super) fn open(disk: &SimDisk) -> (Log, Writer) {
    let (log, mut writer) = open_within(disk, 64 << 20);
    writer.space.segment_bytes = 128 << 10;
    (log, writer)
}

/// The same with a stream that drops its oldest at a quarter of a mebibyte.
pub(super) fn open_dropping(disk: &SimDisk) -> (Log, Writer) {
    let mut options = options_within(64 << 20);
    options.streams[0].max_bytes = 256 << 10;
    options.streams[0].when_full = WhenFull::DropOldest;
    let (log, mut writer) = open_with(disk, options, Arc::new(ManualClock::trusted()));
    writer.space.segment_bytes = 128 << 10;
    (log, writer)
}

/// A log that is stepped, in so many bytes.
pub(super) fn open_within(disk: &SimDisk, max_disk: u64) -> (Log, Writer) {
    open_with(disk, options_within(max_disk), Arc::new(ManualClock::trusted()))
}

pub(super) fn options_within(max_disk: u64) -> Options {
    Options {
        directory: PathBuf::from("simulated"),
        max_disk,
        keep_free: 0,
        commit_wait: Duration::ZERO,
        max_devices: 3,
        streams: vec![StreamOptions {
            name: "main".into(),
            max_bytes: 8 << 20,
            max_age: None,
            when_full: WhenFull::Refuse,
        }],
    }
}

/// A log that is stepped, with its options and its clock.
pub(super) fn open_with(disk: &SimDisk, options: Options, clock: Arc<ManualClock>) -> (Log, Writer) {
    let Prepared { shared, writer, .. } = prepare(Arc::new(disk.clone()), options, clock, Arc::new(Unobserved), None).unwrap();
    (Log::stepped(shared), writer)
}

/// One in ten waits, in the middle of what is settled; its device is another, so that it holds up nothing.
const fn waits(number: u64) -> bool {
    number % 10 == 5
}

fn store(log: &Log, writer: &mut Writer, number: u64) -> bool {
    store_of(log, writer, number, 3000)
}

/// Stores a record with so many bytes of payload; whether it was acked.
pub(super) fn store_of(log: &Log, writer: &mut Writer, number: u64, bytes: usize) -> bool {
    let record = NewRecord {
        stream: StreamId(0),
        received: ManualClock::trusted().now(),
        identity: if waits(number) { "d1" } else { "d0" },
        route: "r",
        topic: "t",
        payload: &payload(number, bytes),
        qos: 1,
        retain: false,
        expiry: None,
        properties: &[],
    };
    let taken = log.producer(Arc::new(Deaf)).append(&[record]).is_ok();
    let batch = writer.swap(&mut lock(&writer.shared.clone().intake));
    writer.commit(batch).is_ok() && taken
}

/// The numbers of what waits, as a reader gets them.
pub(super) fn numbers(log: &Log) -> Vec<u64> {
    let mut reader = log.reader(StreamId(0), PartitionSet::ALL);
    let mut numbers = Vec::new();
    loop {
        let records = reader.read(1 << 20).unwrap();
        if records.is_empty() {
            return numbers;
        }
        numbers.extend(
            records
                .iter()
                .map(|record| u64::from_le_bytes(*record.payload.first_chunk().unwrap())),
        );
    }
}

/// Fills segments, settles most of the first, carries the rest of it, and lets it go; gives what was acked and what settled.
pub(super) fn live(log: &Log, writer: &mut Writer) -> (Vec<u64>, BTreeSet<u64>) {
    let mut acked: Vec<u64> = (0..60).filter(|number| store(log, writer, *number)).collect();
    let mut reader = log.reader(StreamId(0), PartitionSet::ALL);
    let mut settled = BTreeSet::new();
    for record in reader.read(1 << 20).unwrap_or_default() {
        let number = u64::from_le_bytes(*record.payload.first_chunk().unwrap());
        if number < 40 && !waits(number) {
            log.settle(StreamId(0), Offset(record.offset.0), Settlement::Delivered);
            settled.insert(number);
        }
    }
    writer.commit_progress().ok();
    for _ in 0..40 {
        writer.tick();
        while writer.compaction.is_under_way() && writer.rotation.broken().is_none() {
            writer.compact_step().ok();
        }
    }
    (0..3).for_each(|_| drop(writer.commit_progress()));
    acked.extend((60..70).filter(|number| store(log, writer, *number)));
    (acked, settled)
}

#[test]
fn k8_simulated_rotation_compaction_and_unlinking_survive_a_cut_at_every_operation() {
    let whole = SimDisk::new(1, Omission::Nothing);
    let (log, mut writer) = open(&whole);
    let began = whole.operations();
    live(&log, &mut writer);
    let operations = whole.operations() - began;
    let rotations = log.stats().rotations.load(std::sync::atomic::Ordering::Relaxed);
    let compacted = log.stats().compacted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(
        rotations >= 2 && compacted > 0,
        "{rotations} rotations, {compacted} compacted: too little happens"
    );
    println!("{operations} operations, {rotations} rotations, {compacted} records compacted");
    for cut in 0..operations {
        let mut disk = SimDisk::new(cut, Omission::Nothing);
        let (log, mut writer) = open(&disk);
        disk.plan(cut, Fault::Cut);
        let (acked, settled) = live(&log, &mut writer);
        disk.next_process();
        drop((log, writer));
        disk.power_cut();
        let (log, _writer) = open(&disk);
        let found = numbers(&log);
        assert!(found.is_sorted_by(|one, next| one < next), "cut {cut}: {found:?}");
        let lost: Vec<_> = acked
            .iter()
            .filter(|number| !found.contains(number) && !settled.contains(number))
            .collect();
        assert!(lost.is_empty(), "cut {cut}: acked and gone: {lost:?}");
        let audit = log.audit().unwrap();
        assert!(audit.balances() && audit.damaged == 0, "cut {cut}: {audit:?}");
        assert_eq!(audit.waiting, found.len() as u64, "cut {cut}");
    }
}
