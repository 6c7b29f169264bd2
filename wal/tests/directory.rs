//! What operators and disks do to the directory while the log runs: stale locks, removed files, other disks, copies.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use forebay_wal::{AppendError, Log, OpenError};
use support::{Bench, Counting, copy, files, open, options, until};

fn open_second(path: &Path, bench: &Bench) -> Result<forebay_wal::Opened, OpenError> {
    Log::open(options(path), bench.clock.clone(), Arc::new(Counting::default()), None)
}

/// Appends until the log refuses, and gives the reason; nothing may be acked on the way.
fn reason_of_refusal(bench: &mut Bench) -> String {
    let mut reason = None;
    until("the log refuses records", || {
        let record = bench.record("device", b"into nowhere");
        match bench.producer.append(&[record]) {
            Ok(ticket) => bench
                .acks
                .wait(ticket.batch)
                .expect_err("a record was acked that no start will find"),
            Err(AppendError::Unavailable { reason: text }) => {
                reason = Some(text);
                return true;
            }
            Err(other) => panic!("{other}"),
        };
        false
    });
    reason.unwrap()
}

fn payloads(bench: &Bench) -> Vec<Vec<u8>> {
    bench.read_all().iter().map(|record| record.payload.to_vec()).collect()
}

#[test]
fn e22_removing_a_stale_lock_lets_no_second_log_in() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.store("a", b"1");
    std::fs::remove_file(directory.path().join("lock")).unwrap();
    let before = files(directory.path());
    assert!(matches!(open_second(directory.path(), &bench), Err(OpenError::Locked { .. })));
    assert_eq!(files(directory.path()), before, "the second one made a segment");
    until("the lock file is made again", || directory.path().join("lock").exists());
    bench.store("a", b"2");
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(options(directory.path()));
    assert!(bench.report.clean);
    assert_eq!(payloads(&bench), [b"1", b"2"]);
}

#[test]
fn e16_nothing_is_acked_into_a_directory_that_was_removed() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let mut bench = open(options(&path));
    bench.store("a", b"1");
    std::fs::remove_dir_all(&path).unwrap();
    let reason = reason_of_refusal(&mut bench);
    assert!(
        reason.contains("removed or unmounted") && reason.contains("restart Forebay"),
        "{reason}"
    );
    assert!(bench.log.status().unavailable.is_some());
    assert!(!path.exists(), "it was made again although nobody asked for it");
}

#[test]
fn e16_nothing_is_acked_into_a_segment_that_was_removed_and_a_new_one_begins() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.store("a", b"1");
    std::fs::remove_file(&files(directory.path())[0]).unwrap();
    let ticket = bench.append("a", b"2");
    bench
        .acks
        .wait(ticket.batch)
        .expect_err("a record was acked that no start will find");
    until("the log writes again", || bench.log.status().unavailable.is_none());
    bench.store("a", b"3");
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(options(directory.path()));
    assert!(payloads(&bench).contains(&b"3".to_vec()));
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn e23_another_logs_directory_in_its_place_is_left_alone_and_the_right_one_is_taken_up_again() {
    let home = tempfile::tempdir().unwrap();
    let (path, away, foreign) = (home.path().join("log"), home.path().join("away"), home.path().join("foreign"));
    let mut other = open(options(&foreign));
    other.store("b", b"theirs");
    other.log.close().unwrap();
    drop(other);
    let mut bench = open(options(&path));
    bench.store("a", b"1");

    std::fs::rename(&path, &away).unwrap();
    std::fs::rename(&foreign, &path).unwrap();
    let reason = reason_of_refusal(&mut bench);
    assert!(reason.contains("another"), "{reason}");
    std::fs::rename(&path, &foreign).unwrap();
    let theirs = copy(&foreign, &home.path().join("look"));
    let other = open(options(&theirs));
    assert_eq!(payloads(&other), [b"theirs"], "something was written into another log");

    std::fs::create_dir(&path).unwrap();
    until("the empty directory is named", || {
        bench
            .log
            .status()
            .unavailable
            .is_some_and(|reason| reason.contains("without this log"))
    });
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&away, &path).unwrap();
    until("the log writes again", || bench.log.status().unavailable.is_none());
    bench.store("a", b"2");
    assert!(
        matches!(open_second(&path, &bench), Err(OpenError::Locked { .. })),
        "nobody holds the lock"
    );
    bench.log.close().unwrap();
    drop(bench);
    assert_eq!(payloads(&open(options(&path))), [b"1", b"2"]);
}

#[test]
fn a_copy_that_replaces_the_directory_is_taken_up_only_as_it_was_left() {
    let home = tempfile::tempdir().unwrap();
    let (path, older, away) = (home.path().join("log"), home.path().join("older"), home.path().join("away"));
    let mut bench = open(options(&path));
    bench.store("a", b"1");
    copy(&path, &older);
    // The copy has one segment; the log goes on with another.
    std::fs::remove_file(&files(&path)[0]).unwrap();
    bench.append("a", b"2");
    until("a second segment begins", || {
        files(&path).first().is_some_and(|name| name.ends_with("0000000002.redb"))
    });
    until("the log writes again", || bench.log.status().unavailable.is_none());
    std::fs::rename(&path, &away).unwrap();
    std::fs::rename(&older, &path).unwrap();
    let reason = reason_of_refusal(&mut bench);
    assert!(reason.contains("another"), "{reason}");
    assert_eq!(files(&path).len(), 1, "a segment was begun in a log that went back in time");
}

/// Puts every file back as it is in `image`, in its place: a disk of which an image was taken has the same inodes.
fn put_back(image: &Path, path: &Path) {
    for name in std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()) {
        if !image.join(&name).exists() {
            std::fs::remove_file(path.join(name)).unwrap();
        }
    }
    for name in std::fs::read_dir(image).unwrap().map(|entry| entry.unwrap().file_name()) {
        std::fs::write(path.join(&name), std::fs::read(image.join(&name)).unwrap()).unwrap();
    }
}

#[test]
fn k19_a_disk_that_shows_what_it_held_yesterday_gives_no_id_twice() {
    let home = tempfile::tempdir().unwrap();
    let (path, image) = (home.path().join("log"), home.path().join("image"));
    let mut bench = open(options(&path));
    bench.store("a", b"1");
    bench.log.close().unwrap();
    drop(bench);
    copy(&path, &image);
    let mut ids = std::collections::BTreeSet::new();
    for day in 0..3 {
        let mut bench = open(options(&path));
        let offset = bench.store("a", format!("today {day}").as_bytes());
        let stored = bench.read_all().into_iter().find(|record| record.offset == offset).unwrap();
        let id = (stored.id.epoch.to_string(), stored.id.offset);
        assert!(ids.insert(id), "the cloud has seen this id for another record");
        bench.log.close().unwrap();
        drop(bench);
        // What a card had acked and did not keep, or an image that somebody restored.
        put_back(&image, &path);
    }
    let bench = open(options(&path));
    assert_eq!(bench.read_all().len(), 1, "what was there yesterday is there, and no more");
}

#[test]
fn e10_each_start_has_its_own_epoch_in_a_restored_copy_too_and_no_record_changes_its_id() {
    let home = tempfile::tempdir().unwrap();
    let (path, restored) = (home.path().join("log"), home.path().join("restored"));
    let mut bench = open(options(&path));
    bench.store("a", b"1");
    let epoch = bench.read_all()[0].id.epoch;
    bench.log.close().unwrap();
    drop(bench);
    copy(&path, &restored);
    let mut epochs = vec![epoch];
    for path in [&path, &restored, &path, &restored] {
        let mut bench = open(options(path));
        let offset = bench.store("a", b"2");
        let records = bench.read_all();
        let stored = records.iter().find(|record| record.offset == offset).unwrap();
        assert!(!epochs.contains(&stored.id.epoch), "{}: {epochs:?}", path.display());
        epochs.push(stored.id.epoch);
        assert_eq!(records[0].id.epoch, epoch, "a record changed its id");
        bench.log.close().unwrap();
    }
}

#[test]
fn only_the_user_that_runs_the_log_may_read_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("data").join("log");
    let mut bench = open(options(&path));
    bench.store("a", b"1");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o700, 0o700));
    for entry in std::fs::read_dir(&path).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
