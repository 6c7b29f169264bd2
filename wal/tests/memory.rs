//! What a start needs of memory: it must not be more than what the gateway had when it was killed, or it is killed at each start.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use forebay_wal::{Options, WhenFull};
use support::{Bench, copy, files, open, options, stream};

/// Where the child finds its log.
const CHILD: &str = "FOREBAY_WAL_MEMORY_CHILD";
const MIB: u64 = 1 << 20;

fn bounds(directory: &Path) -> Options {
    let mut options = options(directory);
    // Small segments, so that there are many.
    options.max_disk = 128 * MIB;
    options.streams = vec![stream("main", 100 * MIB, WhenFull::Refuse)];
    options
}

/// The most that this process ever had in memory.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Not a test by itself: opens a log, waits until damage is repaired, and says what waits and what it took.
#[test]
fn child_that_starts() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let directory = Path::new(&directory);
    let bench = open(bounds(directory));
    let recovered = bench.report.recovered;
    if directory.ends_with("damaged") {
        support::until("the damaged segment is repaired and quarantined", || {
            !directory.join("0000000001.redb").exists()
        });
    }
    println!("recovered {recovered} peak {}", peak());
    bench.log.close().unwrap();
}

/// What waits, and what the start took.
fn start(directory: &Path) -> (u64, u64) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_starts", "--exact", "--nocapture"])
        .env(CHILD, directory)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let number = |word: &str| {
        let mut words = said.split_whitespace().skip_while(|said| *said != word);
        words.nth(1).unwrap().parse().unwrap()
    };
    (number("recovered"), number("peak"))
}

fn fill(bench: &mut Bench, segments: usize) {
    while files(&bench.log.inspector().directory()).len() < segments {
        bench.fill(2000, 100);
    }
}

#[test]
fn k12_a_start_after_a_kill_needs_no_more_memory_for_a_larger_backlog() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut bench = open(bounds(&log));
    fill(&mut bench, 2);
    let small = copy(&log, &directory.path().join("small"));
    fill(&mut bench, 6);
    let large = copy(&log, &directory.path().join("large"));
    let damaged = copy(&log, &directory.path().join("damaged"));
    drop(bench);
    let first = OpenOptions::new().write(true).open(files(&damaged).remove(0)).unwrap();
    first.write_all_at(&[0; 4096], 0).unwrap();
    let (few, small) = start(&small);
    let (many, large) = start(&large);
    assert!(many > few * 2, "{few} and {many} records");
    assert!(large < small + 8 * MIB, "{few} records took {small} bytes, {many} took {large}");
    let (_, repaired) = start(&damaged);
    // One segment's records by place, and a few mebibytes of it at a time.
    assert!(
        repaired < small + 40 * MIB,
        "a start took {small} bytes, one with a damaged segment {repaired}"
    );
}
