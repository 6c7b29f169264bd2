//! A segment that was closed in order and damaged before the next start.

#![allow(clippy::unwrap_used)]

use super::disk::{Omission, SimDisk};
use super::failing::recover;
use super::rotation::{numbers, open, store_of};
use crate::io::directory::Directory;
use crate::segment::segments::name;
use crate::sync::lock;

/// A log that was stopped in order, with what it has acked.
fn stopped(seed: u64) -> (SimDisk, Vec<u64>) {
    let mut disk = SimDisk::new(seed, Omission::Nothing);
    let (log, mut writer) = open(&disk);
    let acked: Vec<u64> = (0..15).filter(|number| store_of(&log, &mut writer, *number, 3000)).collect();
    let last = writer.swap(&mut lock(&writer.shared.clone().intake));
    writer.finish(last).unwrap();
    disk.next_process();
    drop((log, writer));
    (disk, acked)
}

fn content(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = Directory::open(disk, name).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read(0, &mut bytes).unwrap();
    bytes
}

/// redb reads the pages of a segment that was closed in order unchecked, and could abort the process over one in the middle of a commit
/// (damage, seed 501141).
#[test]
fn damage_of_a_segment_that_was_closed_never_meets_a_commit() {
    let pages = stopped(0).0.pages_of(&name(1));
    for page in pages {
        let (mut disk, acked) = stopped(page);
        disk.flip_page(&name(1), page);
        let (damaged, is_there) = (content(&disk, &name(1)), |disk: &SimDisk| disk.list().unwrap().contains(&name(1)));
        for start in 0..3 {
            let (log, mut writer) = open(&disk);
            for number in 0..5 {
                let number = 100 + start * 10 + number;
                assert!(store_of(&log, &mut writer, number, 3000), "page {page}, start {start}");
            }
            if is_there(&disk) {
                assert!(content(&disk, &name(1)) == damaged, "page {page}, start {start}: it was written to");
            }
            // Whoever reads finds what no start looked at.
            numbers(&log);
            recover(&mut writer);
            let audit = log.audit().unwrap();
            assert!(audit.balances(), "page {page}, start {start}: {audit:?}");
            let found = numbers(&log);
            let old = found.iter().filter(|number| acked.contains(number)).count() as u64;
            assert_eq!(old + audit.damaged, acked.len() as u64, "page {page}, start {start}: {audit:?}");
            assert_eq!(audit.waiting, found.len() as u64, "page {page}, start {start}");
            let last = writer.swap(&mut lock(&writer.shared.clone().intake));
            writer.finish(last).unwrap();
            disk.next_process();
        }
    }
}
