//! Salvage gives back exactly the records whose checksum is right, whatever became of the file around them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use forebay_wal::{SalvageReport, SalvageStep, Salvaged, salvage};
use support::{files, open, options};

/// Payloads from one byte to several blocks, each with its number, so that it is known where each lies.
fn payload(n: usize) -> Vec<u8> {
    let mut payload = format!("<record {n:06}>").into_bytes();
    payload.resize(
        payload.len() + if n % 25 == 3 { 90_000 } else { [10, 300, 5000, 40][n % 4] },
        b'a' + (n % 26) as u8,
    );
    payload
}

/// A closed segment with `count` records.
fn file(directory: &Path, count: usize) -> PathBuf {
    let mut bench = open(options(directory));
    for n in 0..count {
        let ticket = bench.append(&format!("device-{}", n % 7), &payload(n));
        if n % 50 == 49 {
            bench.acks.wait(ticket.batch).unwrap();
        }
    }
    bench.log.close().unwrap();
    drop(bench);
    files(directory).pop().unwrap()
}

fn all(file: &Path) -> (BTreeMap<u64, Salvaged>, SalvageReport) {
    let before = std::fs::read(file).unwrap();
    let mut found = BTreeMap::new();
    let report = salvage(file, &mut |step| {
        if let SalvageStep::Record(record) = step {
            let twice = found.insert(record.offset, *record);
            assert_eq!(twice, None, "each comes once");
        }
        true
    })
    .unwrap();
    assert!(std::fs::read(file).unwrap() == before, "the source is changed");
    assert_eq!(report.records as usize, found.len());
    (found, report)
}

/// The records whose whole bytes lie unbroken in the file, by looking for their payloads.
fn intact(file: &Path, count: usize) -> BTreeSet<u64> {
    let bytes = std::fs::read(file).unwrap();
    let mut starts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..bytes.len().saturating_sub(15) {
        if bytes[at..].starts_with(b"<record ") && bytes[at + 14] == b'>' {
            let number = std::str::from_utf8(&bytes[at + 8..at + 14]).ok().and_then(|text| text.parse().ok());
            if let Some(number) = number {
                starts.entry(number).or_default().push(at);
            }
        }
    }
    let is_intact = |n: &usize| {
        starts
            .get(n)
            .is_some_and(|places| places.iter().any(|at| bytes[*at..].starts_with(&payload(*n))))
    };
    (0..count).filter(is_intact).map(|n| n as u64).collect()
}

fn are_right(found: &BTreeMap<u64, Salvaged>) {
    for (offset, salvaged) in found {
        let n = *offset as usize;
        assert_eq!(salvaged.record.payload, payload(n), "{offset}");
        assert_eq!(salvaged.record.identity, format!("device-{}", n % 7));
        assert_eq!(salvaged.record.id.offset.0, *offset);
    }
}

const COUNT: usize = 100;

#[test]
fn a_whole_file_is_read_through_redb_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), COUNT);
    let (found, report) = all(&file);
    are_right(&found);
    assert_eq!((found.len(), report.carved, report.damaged, report.trouble), (COUNT, 0, 0, None));
    assert!(
        found
            .values()
            .all(|salvaged| salvaged.stream.as_deref() == Some("main") && salvaged.epoch.is_some())
    );
}

#[test]
fn a_destroyed_header_costs_nothing_not_even_the_ids() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), COUNT);
    let epoch = all(&file).0[&0].epoch;
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..4096].fill(0xff);
    let aside = directory.path().join("0000000001.redb.damaged");
    std::fs::write(&aside, bytes).unwrap();
    let (found, report) = all(&aside);
    are_right(&found);
    assert_eq!((found.len(), report.carved), (COUNT, COUNT as u64), "{report:?}");
    assert!(report.trouble.is_some());
    assert!(
        found
            .values()
            .all(|salvaged| salvaged.stream.as_deref() == Some("main") && salvaged.epoch == epoch)
    );
}

#[test]
fn of_a_truncated_file_every_record_is_got_back_that_is_still_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), COUNT);
    let bytes = std::fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let aside = directory.path().join("cut.redb.damaged");
    for part in [used, used / 2, used / 3, 9000, 100, 0] {
        std::fs::write(&aside, &bytes[..part]).unwrap();
        let (found, _) = all(&aside);
        are_right(&found);
        assert_eq!(
            found.keys().copied().collect::<BTreeSet<_>>(),
            intact(&aside, COUNT),
            "{part} of {used}"
        );
    }
}

#[test]
fn flipped_bits_cost_the_records_they_hit_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(directory.path(), COUNT);
    let bytes = std::fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let aside = directory.path().join("flipped.redb.damaged");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut lost = 0;
    for round in 0..8 {
        let mut flipped = bytes.clone();
        for _ in 0..1 + random() % 40 {
            flipped[(random() % used as u64) as usize] ^= 1 << (random() % 8);
        }
        std::fs::write(&aside, flipped).unwrap();
        let (found, report) = all(&aside);
        are_right(&found);
        let (found, intact): (BTreeSet<u64>, _) = (found.into_keys().collect(), intact(&aside, COUNT));
        // A flip may hit a record's other fields: then its payload lies there intact and the record is damaged.
        assert!(found.is_subset(&intact), "round {round}");
        let missing = intact.difference(&found).count();
        assert!(
            missing <= 2,
            "round {round}: {missing} whole payloads are not given back; {report:?}"
        );
        lost += COUNT - found.len();
    }
    assert!(lost > 0, "no flip hit anything: the test proves nothing");
}

#[test]
fn a_file_of_something_else_gives_nothing_and_does_not_hang() {
    let directory = tempfile::tempdir().unwrap();
    let aside = directory.path().join("other");
    // Bytes that look like lengths, headers and rows again and again.
    let tempting: Vec<u8> = (0..1 << 20).map(|n: usize| [1, 0, 1, 0, 64, 0, 0, 0][n % 8]).collect();
    std::fs::write(&aside, tempting).unwrap();
    assert_eq!(all(&aside).0.len(), 0);
    assert!(salvage(&directory.path().join("nowhere"), &mut |_| true).is_err());
}
