//! A commit waits for a thread that has more to append, as long as that says when it rests.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use forebay_wal::rest;
use support::{open, options};

/// The longest wait.
const LONGEST: Duration = Duration::from_millis(5);

// That it begins with the rest is in `wal/src/commit/schedule/rest_wait.rs`. A busy machine makes single commits late, never early.

#[test]
fn a_thread_that_does_not_rest_delays_a_commit_5_ms_and_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    rest();
    let mut round = || {
        let began = Instant::now();
        let ticket = bench.append("a", b"1");
        bench.acks.wait(ticket.batch).unwrap();
        began.elapsed()
    };
    for took in (0..20).map(|_| round()) {
        assert!(took >= LONGEST, "it did not wait: {took:?}");
    }
    support::until("the wait is about 5 ms", || round() < 3 * LONGEST);
}

#[test]
fn a_thread_that_never_rests_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    support::until("a commit begins at once", || {
        let began = Instant::now();
        let ticket = bench.append("a", b"1");
        bench.acks.wait(ticket.batch).unwrap();
        began.elapsed() < LONGEST
    });
}
