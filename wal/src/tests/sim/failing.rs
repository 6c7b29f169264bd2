//! Calls to the disk that fail, one kind at a time: what is said of them, and that they cost nothing.

#![allow(clippy::unwrap_used)]

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::disk::{CREATE, Kind, OPEN_TO_WRITE, Omission, READ, REMOVE, RENAME, SET_LENGTH, SYNC, SYNC_DIRECTORY, SimDisk, WRITE};
use super::rotation::{live, numbers, open, store_of};
use crate::commit::writer::Writer;
use crate::io::directory::Directory;
use crate::log::Log;
use crate::record::{PartitionSet, Settlement, StreamId};
use crate::segment::segments::{is_quarantined, name};
use crate::stats::DiskCall;
use crate::sync::lock;

/// What is logged on this thread, from warnings on.
#[derive(Clone, Default)]
pub(super) struct Lines(pub(super) Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                write!(self.0, " {field}={value:?}").unwrap();
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        lock(&self.0).push(text.0);
    }
}

/// Goes on until the log writes again and what was met is repaired.
pub(super) fn recover(writer: &mut Writer) {
    for _ in 0..6 {
        writer.rotation.retry_now();
        writer.tick();
        while writer.compaction.is_under_way() && writer.rotation.broken().is_none() {
            writer.compact_step().ok();
        }
        writer.commit_progress().ok();
    }
    assert_eq!(writer.rotation.broken(), None);
}

/// What is not settled of what was acked must be there, now and after a restart.
fn nothing_is_lost(disk: &mut SimDisk, log: Log, writer: Writer, expected: &[u64], what: &str) {
    let found = numbers(&log);
    let lost: Vec<_> = expected.iter().filter(|number| !found.contains(number)).collect();
    assert!(lost.is_empty(), "{what}: acked and gone: {lost:?}");
    let audit = log.audit().unwrap();
    assert!(audit.balances() && audit.damaged == 0, "{what}: {audit:?}");
    disk.next_process();
    drop((log, writer));
    let (log, _writer) = open(disk);
    let found = numbers(&log);
    assert!(expected.iter().all(|number| found.contains(number)), "{what}: gone after a restart");
    assert!(log.audit().unwrap().balances(), "{what}");
}

#[test]
fn e29_each_call_that_fails_is_named_with_its_file_place_and_error_and_counted() {
    let kinds: [(&'static [Kind], DiskCall, bool); 7] = [
        (&[RENAME], DiskCall::Rename, false),
        (&[REMOVE], DiskCall::Unlink, false),
        (&[SYNC_DIRECTORY], DiskCall::SyncDirectory, false),
        (&[SET_LENGTH], DiskCall::SetLength, true),
        (&[WRITE], DiskCall::Write, true),
        (&[SYNC], DiskCall::Sync, false),
        (&[READ], DiskCall::Read, true),
    ];
    for (kinds, call, has_place) in kinds {
        for error in [Errno::IO, Errno::PERM] {
            let lines = Lines::default();
            let mut disk = SimDisk::new(3, Omission::Nothing);
            let (log, mut writer) = open(&disk);
            let mut acked: Vec<u64> = (100..140).filter(|number| store_of(&log, &mut writer, *number, 3000)).collect();
            assert_eq!(acked.len(), 40);
            disk.set_failing(Some((kinds, error)));
            let settled = tracing::subscriber::with_default(lines.clone(), || {
                // Another test may just have said, without a subscriber, that no one wants the line.
                tracing::callsite::rebuild_interest_cache();
                let (more, settled) = live(&log, &mut writer);
                acked.extend(more);
                log.shared().segments.discard_ahead();
                settled
            });
            disk.set_failing(None);
            assert!(log.stats().disk_errors.of(call) > 0, "{call:?} was not counted");
            let label = format!("call={:?}", call.label());
            let lines = lock(&lines.0);
            let line = lines
                .iter()
                .find(|line| line.contains(&label) && (!has_place || line.contains("offset=")));
            let line = line.unwrap_or_else(|| panic!("{call:?} is in no line: {lines:#?}"));
            assert!(line.contains(&format!("errno={}", error.raw_os_error())), "{line}");
            let is_file = line.contains(".redb") || line.contains(".tmp") || line.contains("lock");
            assert!(is_file || line.contains("the directory"), "{line}");
            recover(&mut writer);
            assert!(store_of(&log, &mut writer, 900, 100), "{call:?}: it does not write again");
            acked.push(900);
            let expected: Vec<u64> = acked.iter().copied().filter(|number| !settled.contains(number)).collect();
            nothing_is_lost(&mut disk, log, writer, &expected, &format!("{call:?}, {error:?}"));
        }
    }
}

#[test]
fn e29_a_segment_with_a_bad_place_is_quarantined_and_its_blocks_are_not_used_again() {
    let mut bad_places = 0;
    for page in 1..40 {
        let mut disk = SimDisk::new(page, Omission::Nothing);
        let (log, mut writer) = open(&disk);
        let bad = name(writer.number);
        disk.set_bad(&bad, page);
        let mut acked: Vec<u64> = (0..30).filter(|number| store_of(&log, &mut writer, *number, 3000)).collect();
        recover(&mut writer);
        acked.extend((30..50).filter(|number| store_of(&log, &mut writer, *number, 3000)));
        recover(&mut writer);
        let names = disk.list().unwrap();
        if acked.len() < 50 {
            bad_places += 1;
            let is_kept = names.iter().any(|name| is_quarantined(name) && name.starts_with(&bad));
            assert!(is_kept, "page {page}: {names:?}");
            assert!(!names.contains(&bad));
        }
        // What waited only in the bad place may be gone, and is counted then.
        let audit = log.audit().unwrap();
        assert!(audit.balances(), "page {page}: {audit:?}");
        let found = numbers(&log);
        let lost = acked.iter().filter(|number| !found.contains(number)).count() as u64;
        assert!(lost <= audit.damaged, "page {page}: {lost} of {audit:?}");
        disk.next_process();
    }
    assert!(bad_places > 20, "{bad_places}");
}

const CHANGING: &[Kind] = &[CREATE, OPEN_TO_WRITE, RENAME, REMOVE, SYNC_DIRECTORY, WRITE, SET_LENGTH, SYNC];

#[test]
fn e11_on_a_read_only_disk_what_waits_is_read_and_settled_in_memory() {
    for (count, bytes) in [(5, 100), (300, 100), (300, 3000), (40, 30_000)] {
        let mut disk = SimDisk::new(count, Omission::Nothing);
        let (log, mut writer) = open(&disk);
        for number in 0..count {
            assert!(store_of(&log, &mut writer, number, bytes));
        }
        disk.set_failing(Some((CHANGING, Errno::ROFS)));
        assert!(!store_of(&log, &mut writer, 1000, bytes), "acked on a read-only disk");
        let reason = log.status().unavailable.unwrap_or_default();
        assert!(reason.contains("Read-only") && reason.contains(".redb"), "{reason}");
        assert!(!store_of(&log, &mut writer, 1001, bytes));
        let mut reader = log.reader(StreamId(0), PartitionSet::ALL);
        let mut read = 0;
        loop {
            let records = reader.read(20_000).unwrap();
            for record in &records {
                log.settle(record.stream, record.offset, Settlement::Delivered);
            }
            read += records.len() as u64;
            writer.rotation.retry_now();
            writer.tick();
            if records.is_empty() {
                break;
            }
        }
        assert_eq!(read, count, "not all could be read");
        assert_eq!((log.totals().delivered, log.totals().waiting), (count, 0));
        disk.set_failing(None);
        recover(&mut writer);
        assert_eq!(log.status().unavailable, None);
        assert!(store_of(&log, &mut writer, 2000, bytes));
        disk.next_process();
        drop((reader, log, writer));
        let (log, _writer) = open(&disk);
        assert_eq!(numbers(&log), [2000], "what was settled is sent again");
        let audit = log.audit().unwrap();
        assert!(audit.balances() && audit.delivered == count, "{audit:?}");
    }
}

#[test]
fn k15_the_reason_is_that_of_now_and_goes_with_it() {
    let disk = SimDisk::new(1, Omission::Nothing);
    let (log, mut writer) = open(&disk);
    assert!(store_of(&log, &mut writer, 0, 100));
    let reasons = [
        (Errno::NOSPC, "full"),
        (Errno::IO, "os error 5"),
        (Errno::ROFS, "Read-only"),
        (Errno::NOSPC, "disk is full"),
    ];
    for round in 0..3 {
        for (error, word) in reasons {
            disk.set_failing(Some((CHANGING, error)));
            store_of(&log, &mut writer, 1, 100);
            writer.rotation.retry_now();
            writer.tick();
            let reason = log.status().unavailable.unwrap_or_default();
            assert!(reason.contains(word), "round {round}: {error:?} is told as {reason}");
        }
        disk.set_failing(None);
        let again = writer.rotation.retry_at().unwrap();
        assert!(again <= std::time::Instant::now() + std::time::Duration::from_secs(5));
        writer.rotation.retry_now();
        writer.tick();
        assert_eq!(log.status().unavailable, None);
        assert!(store_of(&log, &mut writer, 2, 100));
    }
}

/// As on file systems that copy on write: neither writing over old blocks nor deleting may find space.
#[test]
fn k16_no_space_at_any_call_is_named_and_costs_no_acked_record() {
    let mut told = 0;
    for kind in CHANGING {
        let kinds = std::slice::from_ref(kind);
        let mut disk = SimDisk::new(5, Omission::Nothing);
        let (log, mut writer) = open(&disk);
        let mut acked: Vec<u64> = (100..140).filter(|number| store_of(&log, &mut writer, *number, 3000)).collect();
        assert_eq!(acked.len(), 40);
        disk.set_failing(Some((kinds, Errno::NOSPC)));
        let (more, settled) = live(&log, &mut writer);
        acked.extend(more);
        if let Some(reason) = log.status().unavailable {
            assert!(reason.contains("the disk is full"), "{kind}: {reason}");
            told += 1;
        }
        disk.set_failing(None);
        recover(&mut writer);
        assert_eq!(log.status().unavailable, None, "{kind}");
        assert!(store_of(&log, &mut writer, 900, 100), "{kind}: it does not write again");
        acked.push(900);
        disk.next_process();
        drop((log, writer));
        disk.power_cut();
        let (log, _writer) = open(&disk);
        let found = numbers(&log);
        let lost: Vec<_> = acked
            .iter()
            .filter(|number| !found.contains(number) && !settled.contains(number))
            .collect();
        assert!(lost.is_empty(), "{kind}: acked and gone: {lost:?}");
        let audit = log.audit().unwrap();
        assert!(audit.balances() && audit.damaged == 0, "{kind}: {audit:?}");
        disk.next_process();
    }
    assert!(told >= 4, "{told}: hardly any call fails");
}

#[test]
fn k16_what_the_disk_does_not_let_go_counts_and_is_removed_when_it_does() {
    for error in [Errno::NOSPC, Errno::ROFS] {
        let disk = SimDisk::new(1, Omission::Nothing);
        let (log, mut writer) = open(&disk);
        for number in 0..60 {
            assert!(store_of(&log, &mut writer, number, 3000));
        }
        let removal = &log.shared().segments.removal;
        disk.reserve("old", 100 << 10).unwrap();
        disk.set_failing(Some((&[REMOVE, OPEN_TO_WRITE], error)));
        removal.take(&disk, "old", true).unwrap();
        let bytes = removal.bytes();
        assert!(bytes >= 100 << 10);
        (0..3).for_each(|_| writer.tick());
        assert_eq!(removal.bytes(), bytes, "{error:?}: it does not count any more");
        disk.set_failing(None);
        writer.tick();
        assert_eq!(removal.bytes(), 0, "{error:?}");
        let left: Vec<_> = disk.list().unwrap().into_iter().filter(|name| name.starts_with("gone-")).collect();
        assert!(left.is_empty(), "{error:?}: {left:?} is never removed");
    }
}

#[test]
fn k5_what_is_read_wrongly_once_or_twice_costs_no_record_and_no_segment() {
    let first = name(1);
    let mut corrected = 0;
    let build = || {
        let mut disk = SimDisk::new(7, Omission::Nothing);
        let (log, mut writer) = open(&disk);
        for number in 0..60 {
            assert!(store_of(&log, &mut writer, number, 3000));
        }
        disk.next_process();
        drop((log, writer));
        disk
    };
    for page in build().pages_of(&first) {
        for times in [1, 2] {
            let mut disk = build();
            disk.set_flaky(&first, page, times);
            let (log, mut writer) = open(&disk);
            let found = numbers(&log);
            recover(&mut writer);
            let names = disk.list().unwrap();
            assert!(
                !names.iter().any(|name| is_quarantined(name)),
                "page {page}, {times} times: {names:?}"
            );
            assert_eq!(found, (0..60).collect::<Vec<_>>(), "page {page}, {times} times");
            let audit = log.audit().unwrap();
            assert!(audit.balances() && audit.damaged == 0, "page {page}, {times} times: {audit:?}");
            corrected += log.stats().reads_corrected.load(std::sync::atomic::Ordering::Relaxed);
            disk.next_process();
        }
    }
    assert!(corrected > 20, "{corrected}: hardly anything was read wrongly");
}
