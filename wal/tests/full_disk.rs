//! A small real file system that fills up. Every test here mounts one, so it needs root; all have `full_disk` in their
//! names, by which a run without root leaves them out.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_wal::{AppendError, Options, WhenFull};
use support::{Bench, open, stream};

const MIB: usize = 1 << 20;

/// A mounted file system of its own, in memory, where writing to a full one fails as on any other.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(mib: usize) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(disk.0.path())
            .status();
        assert!(mounted.unwrap().success(), "mounting a tmpfs needs root");
        disk
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    /// Another program takes all that is left, up to the last byte.
    fn fill(&self) {
        let mut filler = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.0.path().join("filler"))
            .unwrap();
        for size in [MIB, 4096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn relieve(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a log that outlives its test by a moment must not keep it mounted.
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

/// Large enough for a ballast of 16 MiB, beyond what the disk has.
fn unbounded(directory: &Path, when_full: WhenFull) -> Options {
    let mut options = support::options(directory);
    options.max_disk = 256 << 20;
    options.streams = vec![stream("main", 1 << 30, when_full)];
    options
}

/// Appends numbered records of 64 KiB until one is refused; gives the acked numbers and the refusal.
fn pour(bench: &mut Bench, numbers: &mut std::ops::RangeFrom<u64>, acked: &mut BTreeSet<u64>) -> AppendError {
    let mut payload = vec![b'.'; MIB / 16];
    loop {
        let number = numbers.next().unwrap();
        assert!(number < 10_000, "the disk never became full");
        payload[..8].copy_from_slice(&number.to_le_bytes());
        let record = bench.record("device", &payload);
        match bench.producer.append(&[record]) {
            Ok(ticket) => {
                if bench.acks.wait(ticket.batch).is_ok() {
                    acked.insert(number);
                }
            }
            Err(error) => return error,
        }
    }
}

fn waits_until_taken(bench: &mut Bench) {
    let deadline = std::time::Instant::now() + support::DEADLINE;
    loop {
        let record = bench.record("device", b"\xff\xff\xff\xff\xff\xff\xff\xffafter");
        if let Ok(ticket) = bench.producer.append(&[record])
            && bench.acks.wait(ticket.batch).is_ok()
        {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{:?}", bench.log.status());
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

fn numbers(records: &[forebay_wal::Record]) -> BTreeSet<u64> {
    let number = |record: &forebay_wal::Record| u64::from_le_bytes(record.payload[..8].try_into().unwrap());
    records.iter().map(number).filter(|number| *number != u64::MAX).collect()
}

#[test]
fn full_disk_refuses_acks_nothing_false_and_goes_on_by_itself_when_there_is_space() {
    let disk = SmallDisk::new(96);
    let mut bench = open(unbounded(&disk.log(), WhenFull::Refuse));
    let (mut acked, mut next) = (BTreeSet::new(), 0..);
    let refused = pour(&mut bench, &mut next, &mut acked);
    assert_eq!(refused, AppendError::DiskFull);
    assert!(acked.len() > 500, "{}", acked.len());
    assert!(
        bench
            .log
            .status()
            .unavailable
            .is_some_and(|reason| reason.contains("free some space"))
    );
    assert_eq!(numbers(&bench.read_all()), acked);
    disk.fill();
    // Half of it is delivered with no byte left for anybody: files go, and that makes room.
    let (sent, kept): (Vec<_>, Vec<_>) = bench
        .read_all()
        .into_iter()
        .partition(|record| record.id.offset.0 < acked.len() as u64 / 2);
    let before = bench.log.status().disk_bytes;
    bench.deliver(&sent);
    bench.until("delivered files are unlinked", |log| log.status().disk_bytes < before - (16 << 20));
    disk.relieve();
    waits_until_taken(&mut bench);
    assert!(bench.log.audit().unwrap().balances());
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(unbounded(&disk.log(), WhenFull::Refuse));
    assert_eq!(numbers(&bench.read_all()), numbers(&kept));
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn full_disk_in_the_middle_of_a_commit_loses_nothing_acked() {
    let disk = SmallDisk::new(128);
    let mut bench = open(unbounded(&disk.log(), WhenFull::Refuse));
    let (mut acked, mut next) = (BTreeSet::new(), 0..);
    bench.until("the ballast is there", |_| disk.log().join("ballast").exists());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Faster than the log's look at what is free.
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                disk.fill();
            }
        });
        let refused = pour(&mut bench, &mut next, &mut acked);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        refused
    });
    assert!(
        matches!(refused, AppendError::DiskFull | AppendError::Unavailable { .. }),
        "{refused:?}"
    );
    assert!(bench.log.is_alive());
    assert_eq!(numbers(&bench.read_all()), acked);
    disk.relieve();
    waits_until_taken(&mut bench);
    pour(&mut bench, &mut next, &mut acked);
    assert_eq!(numbers(&bench.read_all()), acked);
    let audit = bench.log.audit().unwrap();
    assert!(audit.balances(), "{audit:?}");
    bench.log.close().ok();
    drop(bench);
    let bench = open(unbounded(&disk.log(), WhenFull::Refuse));
    assert_eq!(numbers(&bench.read_all()), acked);
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn full_disk_of_a_killed_log_opens_and_is_drained() {
    let disk = SmallDisk::new(64);
    let mut limits = unbounded(&disk.log(), WhenFull::Refuse);
    limits.max_disk = 96 << 20;
    let mut bench = open(limits.clone());
    let (mut acked, mut next) = (BTreeSet::new(), 0..);
    pour(&mut bench, &mut next, &mut acked);
    // What a kill would leave, on a disk as full as this one.
    let other = SmallDisk::new(64);
    let copy = |sparse: &str, from: PathBuf, to: PathBuf| {
        let copied = Command::new("cp").args(["-a", sparse]).args([from, to]).status();
        assert!(copied.unwrap().success());
    };
    copy("--sparse=always", disk.log().join("."), other.log());
    // The ballast is nothing but room.
    copy("--sparse=never", disk.log().join("ballast"), other.log().join("ballast"));
    other.fill();
    limits.directory = other.log();
    let mut bench = open(limits);
    let records = bench.read_all();
    assert_eq!(numbers(&records), acked);
    bench.deliver(&records);
    waits_until_taken(&mut bench);
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn full_disk_drops_the_oldest_where_the_policy_says_so() {
    let disk = SmallDisk::new(64);
    let mut bench = open(unbounded(&disk.log(), WhenFull::DropOldest));
    for _ in 0..150 {
        bench.fill(16, MIB / 16);
        assert_eq!(bench.log.status().unavailable, None);
    }
    let audit = bench.log.audit().unwrap();
    assert!(audit.evicted > 1000 && audit.balances(), "{audit:?}");
}

#[test]
fn full_disk_short_of_keep_free_costs_one_segment_and_is_counted_as_that() {
    let disk = SmallDisk::new(192);
    let mut limits = unbounded(&disk.log(), WhenFull::DropOldest);
    limits.keep_free = 32 << 20;
    let mut bench = open(limits);
    bench.until("the ballast is there", |_| disk.log().join("ballast").exists());
    for _ in 0..40 {
        bench.fill(16, MIB / 16);
    }
    assert_eq!(bench.log.audit().unwrap().evicted, 0);
    let free = || {
        let blocks = rustix::fs::statvfs(disk.0.path()).unwrap();
        blocks.f_bavail * blocks.f_frsize
    };
    // Another program takes what is left, and 4 MiB of what is to be kept.
    let rest = free() - (28 << 20);
    std::fs::write(disk.0.path().join("filler"), vec![b'.'; rest as usize]).unwrap();
    bench.fill(16, MIB / 16);
    let audit = bench.log.audit().unwrap();
    let at = &bench.log.stats().evicted_at;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        (count(&at.keep_free), count(&at.max_disk), count(&at.max_bytes)),
        (audit.evicted, 0, 0)
    );
    // A segment of 16 MiB has 128 to 256 of them.
    assert!((1..16 * 16).contains(&audit.evicted), "{audit:?}");
}
