//! Blocks of a spare segment are used again.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use forebay_wal::{Options, WhenFull};
use support::{copy, files, open, options, stream, until};

fn small_files(directory: &Path) -> Options {
    let mut options = options(directory);
    options.max_disk = 128 << 20;
    options.streams = vec![stream("main", 100 << 20, WhenFull::Refuse)];
    options
}

fn inodes(directory: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::metadata(entry.path()).ok()?.ino())))
        .collect()
}

#[test]
fn a_later_file_is_laid_over_a_spent_one_and_holds_only_what_is_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(small_files(directory.path()));
    let mut stored = 0;
    let mut spent = BTreeSet::new();
    let is_reused = |spent: &BTreeSet<u64>, names: &BTreeMap<String, u64>| {
        let mut logs = names.iter().filter(|(name, _)| name.ends_with(".redb"));
        logs.any(|(_, inode)| spent.contains(inode))
    };
    // Each round spends a file: it waits as the spare, and the one after the next takes its place.
    loop {
        let before = files(directory.path()).len();
        while files(directory.path()).len() == before {
            bench.fill(8, 1 << 15);
            stored += 8;
        }
        bench.fill(3, 1 << 10);
        stored += 3;
        if is_reused(&spent, &inodes(directory.path())) {
            break;
        }
        let records = bench.read_all();
        bench.deliver(&records);
        until("one file is left and one is kept", || {
            files(directory.path()).len() == 1 && inodes(directory.path()).contains_key("spare.tmp")
        });
        spent.extend(inodes(directory.path()).get("spare.tmp"));
        assert!(spent.len() < 5, "none of {spent:?} was used again");
    }
    let waiting = bench.read_all().len();
    let audit = bench.log.audit().unwrap();
    assert!(audit.balances() && audit.accepted == stored, "{audit:?}");
    assert_eq!(audit.waiting, waiting as u64);
    // A kill leaves the new life longer than it knows to be; a clean stop gives back what it does not need.
    let killed = copy(directory.path(), &directory.path().join("killed"));
    bench.log.close().unwrap();
    for path in [killed.as_path(), directory.path()] {
        let mut again = open(small_files(path));
        let is_clean = path == directory.path();
        assert_eq!(again.report.clean, is_clean);
        assert_eq!(again.read_all().len(), waiting);
        assert_eq!(again.log.audit().unwrap(), audit);
        again.store("a", b"more");
        let rotations = again.log.stats().rotations.load(Ordering::Relaxed);
        assert!(!is_clean || rotations == 0, "it takes the room for use that an earlier life left");
    }
}

#[test]
fn a_spent_file_gives_its_room_back_when_there_is_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        max_disk: 40 << 20,
        ..small_files(directory.path())
    };
    let mut bench = open(options);
    let first = files(directory.path());
    while files(directory.path()) == first || !directory.path().join("spare.tmp").exists() {
        bench.fill(8, 1 << 15);
        let records = bench.read_all();
        bench.deliver(&records);
    }
    // Nothing more is delivered: the records fill all that `max_disk` allows.
    let payload = vec![1; 30_000];
    let mut stored = 0_u64;
    loop {
        let record = bench.record("a", &payload);
        let Ok(ticket) = bench.producer.append(&[record]) else { break };
        if bench.acks.wait(ticket.batch).is_err() {
            break;
        }
        stored += 1;
    }
    assert!(!directory.path().join("spare.tmp").exists());
    assert!(stored * (payload.len() as u64) > 20 << 20, "only {stored} fitted");
    assert!(bench.log.status().disk_bytes <= 40 << 20);
    assert!(bench.log.audit().unwrap().balances());
}
