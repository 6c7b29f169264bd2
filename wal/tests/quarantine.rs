//! Damaged segments that are kept for salvage, and what is said of damage.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use forebay_wal::{BootId, Options, PartitionSet, Timestamp, WhenFull};
use support::{Bench, MAIN, ManualClock, files, open, open_at, options, stream};

const MIB: usize = 1 << 20;
const DAY: u64 = 86_400;
/// Where the clock of the tests stands, seconds since 1970.
const NOW: u64 = 1_700_000_000;

fn quarantined_name(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("{number:010}.redb.damaged"))
}

/// A file that was quarantined some time ago.
fn quarantine(directory: &Path, number: usize, bytes: usize, since: u64) {
    let name = quarantined_name(directory, number);
    fs::write(&name, vec![0xA5; bytes]).unwrap();
    let at = UNIX_EPOCH + Duration::from_secs(since);
    File::options().write(true).open(name).unwrap().set_modified(at).unwrap();
}

fn small(directory: &Path, max_disk: usize, when_full: WhenFull) -> Options {
    let mut options = options(directory);
    options.max_disk = max_disk as u64;
    options.streams = vec![stream("main", 1 << 30, when_full)];
    options
}

#[test]
fn e24_a_quarantined_segment_never_costs_a_publish_or_a_record() {
    let one = |mib: usize| vec![mib * MIB];
    for when_full in [WhenFull::Refuse, WhenFull::DropOldest] {
        for sizes in [one(28), one(31), one(40), vec![15 * MIB; 2], vec![3 * MIB; 10], vec![MIB / 4; 120]] {
            let directory = tempfile::tempdir().unwrap();
            for (number, bytes) in sizes.iter().enumerate() {
                quarantine(directory.path(), number + 1, *bytes, NOW - DAY);
            }
            let mut bench = open(small(directory.path(), 32 * MIB, when_full));
            for _ in 0..40 {
                bench.store("device", &vec![1; MIB / 8]);
                assert_eq!(bench.log.status().unavailable, None, "{sizes:?}");
            }
            let audit = bench.log.audit().unwrap();
            assert_eq!((audit.waiting, audit.evicted), (40, 0), "{sizes:?}");
            bench.until("the directory is within its bound", |log| log.status().disk_bytes <= 32 << 20);
        }
    }
}

#[test]
fn e24_quarantined_segments_stay_within_their_bound_and_their_age() {
    let directory = tempfile::tempdir().unwrap();
    // The highest number is the oldest.
    for number in 1..=10 {
        quarantine(directory.path(), number, 2 * MIB, NOW - number as u64 * DAY);
    }
    let clock = ManualClock::at(NOW * 1000, 1, 1000, true);
    let bench = open_at(small(directory.path(), 64 * MIB, WhenFull::Refuse), clock.clone());
    let removed = || {
        let removed = &bench.log.stats().removed_quarantined;
        [&removed.age, &removed.bound, &removed.room].map(|count| count.load(Ordering::Relaxed))
    };
    let there = || {
        (1..100)
            .filter(|number| quarantined_name(directory.path(), *number).exists())
            .collect::<Vec<_>>()
    };
    bench.until("a quarter is kept", |log| log.status().quarantined.segments == 8);
    assert_eq!((there(), removed()), ((1..=8).collect(), [0, 2, 0]), "the oldest go");
    let kept = bench.log.status().quarantined;
    assert_eq!(kept.until, Some(NOW - 8 * DAY + 30 * DAY));
    assert_eq!(kept.bytes, 16 << 20);
    // A clock that nobody proves removes nothing, and gives no age.
    let at = |days: u64, trusted| Timestamp {
        wall_ms: (NOW + days * DAY) * 1000,
        boot: BootId(1),
        monotonic_ms: 2000,
        trusted,
    };
    clock.set(at(70 * 365, false));
    fs::remove_file(quarantined_name(directory.path(), 1)).unwrap();
    quarantine(directory.path(), 20, 4096, 0);
    bench.until("it is looked again", |_| bench.log.status().quarantined.bytes == (14 << 20) + 4096);
    assert_eq!(there(), [2, 3, 4, 5, 6, 7, 8, 20]);
    // The oldest is 31 days old, and one is of today.
    clock.set(at(23, true));
    bench.until("the oldest goes", |_| removed() == [1, 2, 0]);
    bench.until("the new one has a time", |_| {
        let modified = fs::metadata(quarantined_name(directory.path(), 20)).unwrap().modified().unwrap();
        modified == UNIX_EPOCH + Duration::from_secs(NOW + 23 * DAY)
    });
    assert_eq!(there(), [2, 3, 4, 5, 6, 7, 20]);
    clock.set(at(29, true));
    bench.until("all but today's are gone", |_| there() == [20]);
}

#[test]
fn e24_what_a_person_removes_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    quarantine(directory.path(), 1, 20 * MIB, NOW - DAY);
    let bench = open(small(directory.path(), 64 * MIB, WhenFull::Refuse));
    assert_eq!(bench.log.status().quarantined.bytes, 20 << 20);
    bench.until("it counts in the directory", |log| log.status().disk_bytes > 20 << 20);
    fs::remove_file(quarantined_name(directory.path(), 1)).unwrap();
    bench.until("its room is free", |log| log.status().disk_bytes < 20 << 20);
    assert_eq!(bench.log.status().quarantined.segments, 0);
}

/// What is done to a segment, its length given.
type Harm = fn(&Path, u64);

#[test]
fn e26_after_damage_the_ledger_the_streams_and_the_audit_agree() {
    let harms: [(&str, Harm); 5] = [
        ("a page in the middle", |file, len| zeroed(file, len / 2, 4096)),
        ("every fiftieth page", |file, len| {
            (1..len / 4096)
                .filter(|page| page % 50 == 7)
                .for_each(|page| zeroed(file, page * 4096, 4096))
        }),
        ("all of the front", |file, _| zeroed(file, 0, 1 << 20)),
        ("half of it", |file, len| {
            OpenOptions::new().write(true).open(file).unwrap().set_len(len / 2).unwrap()
        }),
        ("the segment itself", |file, _| fs::remove_file(file).unwrap()),
    ];
    for (what, harm) in harms {
        let directory = tempfile::tempdir().unwrap();
        let bounds = || small(directory.path(), 128 * MIB, WhenFull::Refuse);
        let mut bench = open(bounds());
        for _ in 0..20 {
            bench.fill(32, MIB / 32);
        }
        bench.log.close().unwrap();
        drop(bench);
        let first = files(directory.path()).remove(0);
        harm(&first, fs::metadata(&first).unwrap().len());
        let bench = open(bounds());
        bench.until("what cannot be read is found and counted", |_| {
            // Reading finds it.
            bench.log.reader(MAIN, PartitionSet::ALL).read(1 << 30).ok();
            agrees(&bench) && bench.log.totals().damaged > 0
        });
        let damaged = bench.log.totals().damaged;
        assert_eq!(bench.log.stats().damaged.load(Ordering::Relaxed), damaged, "{what}");
        let records = bench.read_all();
        assert_eq!(records.len() as u64 + damaged, 640, "{what}");
        bench.deliver(&records);
        bench.until("nothing waits by any account", |_| {
            agrees(&bench) && bench.log.totals().waiting == 0
        });
        bench.log.close().unwrap();
        drop(bench);
        let bench = open(bounds());
        assert!(agrees(&bench), "{what}, after a restart");
        assert_eq!((bench.log.totals().waiting, bench.log.totals().damaged), (0, damaged), "{what}");
    }
}

fn zeroed(file: &Path, at: u64, bytes: usize) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&vec![0; bytes], at).unwrap();
}

/// Whether the ledger, the streams and a recount say the same of what waits.
fn agrees(bench: &Bench) -> bool {
    // A segment that is being repaired cannot be counted.
    let Ok(audit) = bench.log.audit() else { return false };
    let totals = bench.log.totals();
    let streams: u64 = bench.log.status().streams.iter().map(|stream| stream.waiting).sum();
    totals.balances() && audit.balances() && totals == audit && totals.waiting == streams
}

#[test]
fn k7_a_start_that_could_not_read_all_deletes_nothing() {
    let harms: [(&str, Harm, bool); 4] = [
        ("nothing", |_, _| {}, false),
        ("its header", |file, _| zeroed(file, 0, 4096), true),
        (
            "its second half",
            |file, len| OpenOptions::new().write(true).open(file).unwrap().set_len(len / 2).unwrap(),
            true,
        ),
        ("all of it but its end", |file, len| zeroed(file, 0, (len - 65_536) as usize), true),
    ];
    for (what, harm, is_kept) in harms {
        let directory = tempfile::tempdir().unwrap();
        let bounds = || small(directory.path(), 128 * MIB, WhenFull::Refuse);
        let mut bench = open(bounds());
        for _ in 0..12 {
            bench.fill(32, MIB / 32);
        }
        let first = files(directory.path()).remove(0);
        let stray = fs::read(&first).unwrap();
        bench.deliver(&bench.read_all());
        support::until("the first segment is gone", || !first.exists());
        bench.fill(32, 4096);
        bench.log.close().unwrap();
        drop(bench);
        // A kill between the commit that drops a segment and its removal leaves it.
        fs::write(&first, &stray).unwrap();
        let newest = files(directory.path()).pop().unwrap();
        harm(&newest, fs::metadata(&newest).unwrap().len());
        let bench = open(bounds());
        let kept = directory
            .path()
            .join(format!("{}.damaged-uncounted", first.file_name().unwrap().to_str().unwrap()));
        // Where the catalogue of an older segment is the newest that can be read, it is in that.
        assert_eq!(kept.exists() || first.exists(), is_kept, "{what}");
        assert!(!kept.exists() || fs::read(kept).unwrap() == stray, "{what}");
        drop(bench);
    }
}
