//! Steps of the clock against what the log has on disk: ages over boots, and the last trusted time.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use forebay_wal::{BootId, Options, Timestamp};
use support::{Bench, ManualClock, open_at, options};

/// 2026-12-01.
const TRUTH: u64 = 1_796_083_200_000;
const YEAR_2099: u64 = 4_070_908_800_000;
const YEAR_2038: u64 = 2_147_483_648_000;
const YEAR_2069: u64 = 3_124_224_000_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn at(boot: u128, wall_ms: u64, trusted: bool) -> Timestamp {
    Timestamp {
        wall_ms,
        boot: BootId(boot),
        monotonic_ms: 10_000,
        trusted,
    }
}

fn later(now: Timestamp, by_ms: u64) -> Timestamp {
    Timestamp {
        wall_ms: now.wall_ms + by_ms,
        monotonic_ms: now.monotonic_ms + by_ms,
        ..now
    }
}

/// A log whose records expire after an hour, opened at a moment.
fn open(limits: &Options, now: Timestamp) -> Bench {
    open_at(
        limits.clone(),
        ManualClock::at(now.wall_ms, now.boot.0, now.monotonic_ms, now.trusted),
    )
}

fn limits(directory: &Path) -> Options {
    let mut limits = options(directory);
    limits.streams[0].max_age = Some(Duration::from_millis(HOUR));
    limits
}

fn close(bench: Bench) {
    bench.log.close().unwrap();
    drop(bench);
}

#[test]
fn k24_records_of_the_future_expire_from_the_next_trusted_commit_on() {
    for first in [at(1, YEAR_2099, true), at(1, YEAR_2038, true), at(1, 5_000, false)] {
        let directory = tempfile::tempdir().unwrap();
        let limits = limits(directory.path());
        let mut bench = open(&limits, first);
        bench.fill(1_000, 10);
        close(bench);
        // The true time; a commit sees the records, and the gateway is restarted again and again.
        for (boot, passed) in [(2, 0), (3, HOUR / 2), (4, HOUR - 60_000)] {
            let mut bench = open(&limits, at(boot, TRUTH + passed, true));
            bench.store("witness", b"1");
            assert_eq!(bench.log.audit().unwrap().expired, 0, "{first:?}: late beats lost");
            close(bench);
        }
        let mut bench = open(&limits, at(5, TRUTH + HOUR + 60_000, true));
        bench.store("a", b"fresh");
        let found = bench.read_all();
        assert_eq!(found.last().unwrap().payload, b"fresh"[..]);
        assert_eq!(found.len(), 3, "{first:?}: two witnesses are younger");
        assert_eq!(bench.log.audit().unwrap().expired, 1_001);
    }
}

#[test]
fn e3_a_clock_of_another_boot_that_is_not_trusted_expires_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = limits(directory.path());
    limits.streams[0].max_age = Some(Duration::from_millis(7 * DAY));
    let mut bench = open(&limits, at(1, TRUTH, true));
    bench.fill(200, 10);
    close(bench);
    for wrong in [TRUTH + 20 * DAY, 5_000, TRUTH - 20 * DAY, YEAR_2038, YEAR_2069, YEAR_2099] {
        let mut bench = open(&limits, at(2, wrong, false));
        bench.store("other", b"commits go on");
        assert_eq!(
            bench.read_all().iter().filter(|record| record.identity != "other").count(),
            200,
            "{wrong}"
        );
        assert_eq!(bench.log.audit().unwrap().expired, 0, "{wrong}");
        close(bench);
    }
    // Synchronised, the twenty days are proved.
    let bench = open(&limits, at(3, TRUTH + 20 * DAY, true));
    assert_eq!(bench.read_all().iter().filter(|record| record.identity != "other").count(), 0);
    assert_eq!(bench.log.audit().unwrap().expired, 200);
}

#[test]
fn within_a_boot_only_the_boot_time_counts() {
    let directory = tempfile::tempdir().unwrap();
    let limits = limits(directory.path());
    let mut bench = open(&limits, at(1, TRUTH, true));
    bench.fill(10, 10);
    for wrong in [5_000, TRUTH + 20 * DAY, YEAR_2038, YEAR_2069, YEAR_2099, TRUTH - 20 * DAY, TRUTH] {
        for trusted in [false, true] {
            bench.clock.set(at(1, wrong, trusted));
            assert_eq!(bench.read_all().len(), 10, "{wrong}");
        }
    }
    close(bench);
    // Suspended for six hours: the boot time says so, whatever the wall clock says.
    let bench = open(&limits, later(at(1, 5_000, false), 6 * HOUR));
    assert_eq!(bench.read_all().len(), 0);
}

#[test]
fn b2_the_last_trusted_time_gives_way_to_an_earlier_trusted_one_and_can_be_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let limits = limits(directory.path());
    let mut bench = open(&limits, at(1, YEAR_2099, true));
    bench.store("a", b"1");
    let known = |bench: &Bench| bench.log.status().last_trusted.map(|time| time.wall_ms);
    assert_eq!(known(&bench), Some(YEAR_2099));
    close(bench);
    // An untrusted clock changes nothing, whatever it shows.
    let mut bench = open(&limits, at(2, TRUTH, false));
    bench.store("a", b"2");
    assert_eq!(known(&bench), Some(YEAR_2099));
    close(bench);
    let mut bench = open(&limits, at(3, TRUTH, true));
    bench.store("a", b"3");
    assert_eq!(known(&bench), Some(TRUTH));
    close(bench);
    // By hand.
    let bench = open(&limits, at(4, TRUTH, false));
    assert!(bench.log.forget_trusted_time().unwrap());
    assert_eq!(known(&bench), None);
    assert!(!bench.log.forget_trusted_time().unwrap());
    close(bench);
    assert_eq!(known(&open(&limits, at(5, TRUTH, false))), None, "over a restart");
}
