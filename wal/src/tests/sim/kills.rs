//! A start that is killed over and over again, by a service manager or a probe that waits no longer.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::disk::{Fault, Omission, SimDisk};
use super::failing::recover;
use super::rotation::{numbers, open, options_within, store_of};
use crate::error::OpenError;
use crate::inspect::audit::Audit;
use crate::io::directory::Directory;
use crate::log::Log;
use crate::recovery::counted::COUNTED;
use crate::recovery::open::{Prepared, prepare};
use crate::segment::segments::{name, number};
use crate::stats::Observer;
use crate::testing::ManualClock;

const RECORDS: u64 = 500;

/// How often a start told how far it is.
#[derive(Debug, Default)]
struct Told(AtomicU64);

impl Observer for Told {
    fn committed(&self, _latency: Duration, _records: u64, _bytes: u64) {}
    fn opening(&self, _segments: u64, _of: u64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A killed log of a dozen segments, of which this page of the newest is damaged; and how many segments it has.
fn damaged(page: u64) -> (SimDisk, u64) {
    let mut disk = SimDisk::new(7, Omission::Nothing);
    let (log, mut writer) = open(&disk);
    for number in 0..RECORDS {
        assert!(store_of(&log, &mut writer, number, 3000));
    }
    disk.next_process();
    drop((log, writer));
    let segments: Vec<u64> = disk.list().unwrap().iter().filter_map(|name| number(name)).collect();
    let newest = segments.iter().max().copied().unwrap();
    disk.flip_page(&name(newest), page);
    (disk, segments.len() as u64)
}

fn start(disk: &SimDisk, told: &Arc<Told>) -> Result<Prepared, OpenError> {
    let clock = Arc::new(ManualClock::trusted());
    prepare(Arc::new(disk.clone()), options_within(64 << 20), clock, told.clone(), None)
}

/// What is there once the damaged segment was repaired.
fn found(prepared: Prepared) -> (Vec<u64>, Audit, bool) {
    let Prepared {
        shared,
        mut writer,
        report,
        ..
    } = prepared;
    let log = Log::stepped(shared);
    recover(&mut writer);
    (numbers(&log), log.audit().unwrap(), report.clean)
}

/// Damage after which all segments are counted anew; how many segments there are, how many operations the start takes that nobody
/// kills, and what it finds.
fn rebuilt() -> (u64, u64, u64, (Vec<u64>, Audit, bool)) {
    for page in 0..40 {
        let (disk, segments) = damaged(page);
        let told = Arc::new(Told::default());
        let began = disk.operations();
        let Ok(prepared) = start(&disk, &told) else { continue };
        let operations = disk.operations() - began;
        // Each is looked at once, and once more when it is counted.
        if told.0.load(Ordering::Relaxed) >= 2 * segments {
            return (page, segments, operations, found(prepared));
        }
    }
    panic!("no damaged page of the newest segment has all counted anew");
}

#[test]
fn k13_a_rebuild_that_is_killed_over_and_over_goes_on_where_it_was_and_ends() {
    let (page, segments, operations, expected) = rebuilt();
    assert!(segments > 8, "{segments} segments are too few");
    assert!(expected.1.balances(), "{:?}", expected.1);
    for (part, most_starts) in [(3, 4), (2, 4)] {
        let (mut disk, _) = damaged(page);
        let (mut starts, mut kept) = (0, 0);
        let prepared = loop {
            starts += 1;
            assert!(starts <= most_starts + segments, "{starts} starts, and it is not done");
            disk.plan(operations * part / 4, Fault::Cut);
            match start(&disk, &Arc::default()) {
                Ok(prepared) => break prepared,
                Err(error) => assert!(disk.is_off(), "{error}"),
            }
            disk.next_process();
            disk.power_cut();
            // Also a power cut takes nothing back of what a start has counted.
            let lines = disk
                .noted(COUNTED)
                .map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count());
            assert!(
                kept == 0 || lines > kept,
                "start {starts}: {lines} segments are known, and {kept} were"
            );
            kept = lines;
        };
        disk.forget_plan();
        println!("{starts} starts of {part}/4 of {operations} operations, {segments} segments");
        assert!(starts > 1, "nothing was killed");
        assert!(
            !disk.list().unwrap().contains(&COUNTED.to_owned()),
            "what is no longer needed stays"
        );
        let (numbers, audit, is_clean) = found(prepared);
        assert_eq!(numbers, expected.0, "{part}/4");
        assert_eq!(
            (audit.waiting, audit.damaged, is_clean),
            (expected.1.waiting, expected.1.damaged, expected.2)
        );
        assert!(audit.balances(), "{audit:?}");
    }
}

#[test]
fn k13_what_was_counted_from_another_state_is_not_taken_over() {
    let (page, segments, ..) = rebuilt();
    let (mut disk, _) = damaged(page);
    // It dies after a few segments, and the file that it leaves is of another log.
    let lines = (1..=segments).map(|segment| {
        let words = format!("00000000 {segment} 0:1:1");
        format!("{words} {:08x}\n", crc32c::crc32c(words.as_bytes()))
    });
    let file = disk.create(COUNTED).unwrap();
    file.write(0, lines.collect::<String>().as_bytes()).unwrap();
    file.sync().unwrap();
    Directory::sync(&disk).unwrap();
    let (numbers, audit, _) = found(start(&disk, &Arc::default()).unwrap());
    assert_eq!(audit.waiting, numbers.len() as u64, "{audit:?}");
    assert!(audit.balances(), "{audit:?}");
    disk.next_process();
}
