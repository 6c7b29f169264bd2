//! Damage that no start meets: whoever reads it first sees to it, and nothing keeps its segment for ever.

#![allow(clippy::unwrap_used)]

use rustix::io::Errno;

use super::disk::{Omission, READ, SimDisk};
use super::failing::recover;
use super::rotation::{numbers, open, open_dropping, store_of};
use crate::commit::writer::Writer;
use crate::encoding::change::{Change, Count};
use crate::io::directory::Directory;
use crate::log::Log;
use crate::read::reader::Reader;
use crate::read::suspended::SuspensionKey;
use crate::record::{Offset, PartitionSet, Settlement, StreamId};
use crate::segment::segments::name;
use crate::sync::lock;

/// Who meets it.
#[derive(Clone, Copy, Debug)]
enum Later {
    /// A reader that has not passed it yet.
    Reader,
    /// A reader that yielded its records before, and begins again, as after a broken connection.
    Again,
    /// A look at a suspended pair whose records were met before.
    Suspended,
    /// Compaction, because little is left and stands still.
    Compaction,
    /// Eviction at the stream's bound.
    Eviction,
    /// A record that becomes a dead letter.
    Letter,
}

const STREAM: StreamId = StreamId(0);

fn read_all(reader: &mut Reader) -> Vec<(Offset, String)> {
    let mut read = Vec::new();
    loop {
        let records = reader.read(1 << 20).unwrap();
        if records.is_empty() {
            return read;
        }
        read.extend(records.into_iter().map(|record| (record.offset, record.identity.to_string())));
    }
}

fn suspended() -> SuspensionKey {
    SuspensionKey {
        stream: STREAM,
        route: "r".into(),
        identity: "d1".into(),
    }
}

/// What is done before the damage.
fn before(later: Later, log: &Log, writer: &mut Writer, reader: &mut Reader) -> Vec<Offset> {
    if matches!(later, Later::Reader | Later::Eviction) {
        return Vec::new();
    }
    let read = read_all(reader);
    match later {
        Later::Suspended => {
            log.suspend(suspended(), read[0].0);
            for (offset, _) in read.iter().filter(|(_, identity)| identity == "d0") {
                log.settle(STREAM, *offset, Settlement::Delivered);
            }
            assert!(!log.read_suspended(&suspended(), usize::MAX).unwrap().is_empty());
        }
        Later::Compaction => {
            for (offset, _) in read.iter().filter(|(_, identity)| identity == "d0") {
                log.settle(STREAM, *offset, Settlement::Delivered);
            }
        }
        _ => {}
    }
    writer.commit_progress().unwrap();
    read.into_iter().map(|(offset, _)| offset).collect()
}

/// The one who meets it.
fn meet(later: Later, log: &Log, writer: &mut Writer, reader: &mut Reader, read: &[Offset]) {
    match later {
        Later::Reader => drop(read_all(reader)),
        Later::Again => {
            reader.rewind();
            read_all(reader);
        }
        Later::Suspended => drop(log.read_suspended(&suspended(), usize::MAX)),
        Later::Compaction => (0..40).for_each(|_| writer.tick()),
        Later::Eviction => {
            for number in 100..120 {
                store_of(log, writer, number, 30_000);
            }
        }
        Later::Letter => read.iter().for_each(|offset| {
            log.settle(
                STREAM,
                *offset,
                Settlement::Dead {
                    reason: "x",
                    detail: String::new(),
                },
            );
        }),
    }
}

/// How many dead letters there are.
fn letters(log: &Log) -> u64 {
    read_all(&mut log.reader(StreamId::DEAD, PartitionSet::ALL)).len() as u64
}

/// Delivers all that can be read, suspended or not, without a restart.
fn deliver(log: &Log, writer: &mut Writer, reader: &mut Reader) {
    for _ in 0..3 {
        reader.rewind();
        for (offset, _) in read_all(reader) {
            log.settle(STREAM, offset, Settlement::Delivered);
        }
        if let Ok(records) = log.read_suspended(&suspended(), usize::MAX) {
            for record in records {
                log.settle(STREAM, record.offset, Settlement::Delivered);
            }
        }
        recover(writer);
    }
}

#[test]
fn k6_damage_that_only_a_later_reader_meets_takes_the_same_way_out() {
    let kinds = [
        Later::Reader,
        Later::Again,
        Later::Suspended,
        Later::Compaction,
        Later::Eviction,
        Later::Letter,
    ];
    for later in kinds {
        let build = |seed: u64| {
            let disk = SimDisk::new(seed, Omission::Nothing);
            let (log, mut writer) = match later {
                Later::Eviction => open_dropping(&disk),
                _ => open(&disk),
            };
            for number in 0..60 {
                assert!(store_of(&log, &mut writer, number, 3000));
            }
            (disk, log, writer)
        };
        let (disk, ..) = build(0);
        let mut met = 0;
        for page in disk.pages_of(&name(1)) {
            let what = format!("{later:?}, page {page}");
            let (mut disk, log, mut writer) = build(page);
            let mut reader = log.reader(STREAM, PartitionSet::ALL);
            let read = before(later, &log, &mut writer, &mut reader);
            disk.flip_page(&name(1), page);
            log.shared().segments.forget_cached(1);
            meet(later, &log, &mut writer, &mut reader, &read);
            recover(&mut writer);
            deliver(&log, &mut writer, &mut reader);
            let audit = log.audit().unwrap();
            assert!(audit.balances(), "{what}: {audit:?}");
            assert_eq!(audit.waiting, 0, "{what}: {audit:?}");
            assert!(numbers(&log).is_empty(), "{what}");
            assert!(!disk.list().unwrap().contains(&name(1)), "{what}: its segment is kept for ever");
            if matches!(later, Later::Letter) {
                assert_eq!(letters(&log), audit.dead_lettered, "{what}: {audit:?}");
            }
            met += u64::from(audit.damaged > 0);
            disk.next_process();
        }
        // What is evicted goes all the same.
        assert!(met > 0 || matches!(later, Later::Eviction), "{later:?}: {met} pages cost anything");
    }
}

#[test]
fn records_that_could_not_be_read_when_they_were_counted_wait_again_and_the_ledger_balances() {
    for is_audited in [true, false] {
        let mut disk = SimDisk::new(1, Omission::Nothing);
        let (log, mut writer) = open(&disk);
        for number in 0..60 {
            assert!(store_of(&log, &mut writer, number, 3000));
        }
        // As a start says that could not read three of them.
        {
            let mut catalogue = lock(&log.shared().catalogue);
            let (waiting, bytes) = catalogue
                .segment(1)
                .and_then(|entry| entry.part(0))
                .map(|part| (part.waiting, part.bytes))
                .unwrap();
            catalogue.reset_waiting(1, 0, waiting - 3, bytes - 9000);
            catalogue.apply(&Change::Ledger {
                slot: 0,
                count: Count::Damaged,
                by: 3,
            });
        }
        let mut reader = log.reader(STREAM, PartitionSet::ALL);
        if is_audited {
            assert!(!log.audit().unwrap().balances());
            recover(&mut writer);
            let audit = log.audit().unwrap();
            assert!(audit.balances() && audit.requeued == 3 && audit.waiting == 60, "{audit:?}");
        }
        deliver(&log, &mut writer, &mut reader);
        let audit = log.audit().unwrap();
        assert!(audit.balances() && audit.waiting == 0, "{audit:?}");
        assert_eq!((audit.delivered, audit.damaged, audit.requeued), (60, 3, 3));
        disk.next_process();
    }
}

/// A log in whose first segment some records have died while the disk gives none of it; how many.
fn died_unread(disk: &SimDisk) -> (Log, Writer, u64) {
    let (log, mut writer) = open(disk);
    for number in 0..60 {
        assert!(store_of(&log, &mut writer, number, 3000));
    }
    let mut reader = log.reader(STREAM, PartitionSet::ALL);
    let read = read_all(&mut reader);
    disk.set_failing(Some((&[READ], Errno::PERM)));
    log.shared().segments.forget_cached(1);
    let dead: Vec<_> = read.into_iter().take(5).map(|(offset, _)| offset).collect();
    for offset in &dead {
        let reason = Settlement::Dead {
            reason: "x",
            detail: String::new(),
        };
        log.settle(STREAM, *offset, reason);
    }
    (log, writer, dead.len() as u64)
}

#[test]
fn a_dead_letter_waits_until_its_record_can_be_read() {
    let mut disk = SimDisk::new(1, Omission::Nothing);
    let (log, mut writer, dead) = died_unread(&disk);
    for _ in 0..5 {
        writer.commit_progress().unwrap();
    }
    disk.set_failing(None);
    assert_eq!(letters(&log), 0);
    writer.commit_progress().unwrap();
    let audit = log.audit().unwrap();
    assert!(audit.balances(), "{audit:?}");
    assert_eq!((audit.dead_lettered, audit.damaged, letters(&log)), (dead, 0, dead));
    disk.next_process();
}

#[test]
fn a_dead_letter_that_cannot_be_made_is_counted_as_damaged_and_the_ledger_balances() {
    let mut disk = SimDisk::new(1, Omission::Nothing);
    let (log, mut writer, dead) = died_unread(&disk);
    for _ in 0..30 {
        writer.commit_progress().unwrap();
    }
    disk.set_failing(None);
    recover(&mut writer);
    let audit = log.audit().unwrap();
    assert!(audit.balances(), "{audit:?}");
    assert_eq!((audit.dead_lettered, audit.damaged, letters(&log)), (0, dead, 0));
    disk.next_process();
}
