//! The same misfortune over and over again: what each leaves must not add up.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::disk::{Omission, SimDisk};
use super::rng::Rng;
use super::rotation::{numbers, open_within, store_of};
use crate::commit::writer::Writer;
use crate::io::directory::Directory;
use crate::segment::segments::{is_quarantined, number};

/// Looks around `times` times and does what was found to do.
fn tick(writer: &mut Writer, times: u64) {
    for _ in 0..times {
        writer.tick();
        while writer.compaction.is_under_way() && writer.rotation.broken().is_none() {
            writer.compact_step().ok();
        }
    }
}

fn used(disk: &SimDisk, is_meant: impl Fn(&str) -> bool) -> u64 {
    let names = disk.list().unwrap();
    let meant = names.iter().filter(|name| is_meant(name));
    meant.map(|name| disk.allocated(name).unwrap()).sum()
}

fn segments(disk: &SimDisk) -> usize {
    disk.list().unwrap().iter().filter(|name| number(name).is_some()).count()
}

#[test]
fn e17_four_hundred_kills_in_one_outage_leave_few_segments() {
    const MAX_DISK: u64 = 32 << 20;
    for (seed, kills, most_bytes, most_ticks) in [(1, 400, 10, 2), (2, 120, 60_000, 3)] {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::new(seed, Omission::Nothing);
        let mut acked = Vec::new();
        let mut most = 0;
        for kill in 0..kills {
            let (log, mut writer) = open_within(&disk, MAX_DISK);
            for nth in 0..=rng.below(2) {
                let number = kill * 2 + nth;
                let bytes = 8 + rng.below(most_bytes) as usize;
                assert!(
                    store_of(&log, &mut writer, number, bytes),
                    "seed {seed}: refused after {kill} kills"
                );
                acked.push(number);
            }
            // Some live too short a time to do anything else.
            tick(&mut writer, rng.below(most_ticks));
            most = most.max(segments(&disk));
            disk.next_process();
            drop((log, writer));
            assert!(used(&disk, |_| true) <= MAX_DISK, "seed {seed}, kill {kill}");
        }
        let (log, mut writer) = open_within(&disk, MAX_DISK);
        tick(&mut writer, 2);
        assert!(most < 60, "seed {seed}: {most} segments");
        assert!(segments(&disk) <= 22, "seed {seed}: {} segments are left", segments(&disk));
        assert_eq!(numbers(&log), acked, "seed {seed}");
        let audit = log.audit().unwrap();
        assert!(audit.balances() && audit.damaged == 0, "seed {seed}: {audit:?}");
    }
}

#[test]
fn e17_small_segments_make_room_when_the_disk_is_at_its_bound() {
    // Nobody looks around: only the need for room merges.
    const MAX_DISK: u64 = 12 << 20;
    let mut disk = SimDisk::new(5, Omission::Nothing);
    let mut acked = Vec::new();
    for kill in 0..300 {
        let (log, mut writer) = open_within(&disk, MAX_DISK);
        let is_acked = store_of(&log, &mut writer, kill, 100);
        assert!(is_acked, "refused after {kill} kills: {:?}, {:?}", log.status(), writer.space);
        acked.push(kill);
        disk.next_process();
        drop((log, writer));
    }
    let (log, _writer) = open_within(&disk, MAX_DISK);
    assert_eq!(numbers(&log), acked);
    assert!(segments(&disk) < 250, "{} segments: nothing was merged", segments(&disk));
}

#[test]
fn e24_sixty_rounds_of_damage_and_kills_leave_room_for_publishes() {
    const MAX_DISK: u64 = 12 << 20;
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::new(seed, Omission::Nothing);
        let mut quarantined = BTreeSet::new();
        for round in 0..60 {
            let (log, mut writer) = open_within(&disk, MAX_DISK);
            tick(&mut writer, 3);
            for nth in 0..5 {
                let number = round * 5 + nth;
                assert!(store_of(&log, &mut writer, number, 20_000), "seed {seed}: refused in round {round}");
            }
            tick(&mut writer, 1);
            quarantined.extend(disk.list().unwrap().into_iter().filter(|name| is_quarantined(name)));
            let kept = used(&disk, is_quarantined);
            assert!(kept <= MAX_DISK / 4, "seed {seed}, round {round}: {kept} bytes are quarantined");
            assert!(used(&disk, |_| true) <= MAX_DISK, "seed {seed}, round {round}");
            let audit = log.audit().unwrap();
            assert!(audit.balances() && audit.evicted == 0, "seed {seed}, round {round}: {audit:?}");
            // The cloud is there, so that only what is quarantined can fill the disk.
            let mut reader = log.reader(crate::record::StreamId(0), crate::record::PartitionSet::ALL);
            for record in reader.read(1 << 20).unwrap_or_default() {
                log.settle(record.stream, record.offset, crate::record::Settlement::Delivered);
            }
            writer.commit_progress().ok();
            disk.next_process();
            drop((reader, log, writer));
            for _ in 0..40 {
                disk.flip(&mut rng);
            }
        }
        assert!(quarantined.len() > 20, "seed {seed}: only {} were quarantined", quarantined.len());
    }
}
