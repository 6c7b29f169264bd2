//! A log as version 1 of the format wrote it stays readable.
//!
//! `FOREBAY_BLESS=1 cargo test -p forebay-wal --test golden` writes it if it is missing; a released one is never removed.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_wal::testing::{ManualClock, Unobserved};
use forebay_wal::{DeadLetter, Log, Offset, OpenError, Options, PartitionSet, Settlement, StreamId, SuspensionKey, WhenFull};
use redb::ReadableTable;
use support::{Bench, MAIN, copy, open, options, stream};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn golden_options(directory: &Path) -> Options {
    let mut options = options(directory);
    options.max_disk = 128 << 20;
    options.streams = vec![
        stream("main", 64 << 20, WhenFull::Refuse),
        stream("alarms", 1 << 20, WhenFull::DropOldest),
    ];
    options
}

fn letters(bench: &Bench) -> Vec<forebay_wal::Record> {
    bench.log.reader(StreamId::DEAD, PartitionSet::ALL).read(1 << 20).unwrap()
}

/// Six records: one delivered, two dead of which one is put back, one suspended, two waiting.
fn write(directory: &Path) {
    let mut bench = open(golden_options(directory));
    for (nth, device) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        bench.store(device, format!("{{\"n\":{nth}}}").as_bytes());
    }
    let records = bench.read_all();
    let dead = |detail: &str| Settlement::Dead {
        reason: "topic-too-long",
        detail: detail.into(),
    };
    bench.log.settle(MAIN, Offset(0), Settlement::Delivered);
    bench.log.settle(MAIN, Offset(1), dead("first"));
    bench.log.settle(MAIN, Offset(2), dead("second"));
    let key = SuspensionKey {
        stream: MAIN,
        route: records[3].route.clone(),
        identity: "d".into(),
    };
    bench.log.suspend(key, Offset(3));
    support::until("the letters are stored", || letters(&bench).len() == 2);
    assert_eq!(bench.log.requeue(&[Offset(0)]).unwrap().requeued, 1);
    bench.log.close().unwrap();
}

#[test]
fn format_version_1_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    if std::env::var_os("FOREBAY_BLESS").is_some() && !folder().exists() {
        write(&path);
        std::fs::remove_dir_all(folder()).ok();
        copy(&path, &folder());
        for name in ["ballast", "lock"] {
            std::fs::remove_file(folder().join(name)).ok();
        }
    }
    let path = copy(&folder(), &directory.path().join("golden"));
    let bench = open(golden_options(&path));
    assert!(bench.report.clean);
    let payloads: Vec<_> = bench
        .read_all()
        .iter()
        .map(|record| (record.offset.0, record.id.offset.0, record.payload.to_vec()))
        .collect();
    let payload = |nth: u64| format!("{{\"n\":{nth}}}").into_bytes();
    assert_eq!(payloads, [(4, 4, payload(4)), (5, 5, payload(5)), (6, 1, payload(1))]);
    let suspensions = bench.log.suspensions(MAIN);
    assert_eq!(suspensions.len(), 1);
    let suspended = bench.log.read_suspended(&suspensions[0].key, 10).unwrap();
    assert_eq!(
        (suspended.len(), suspended[0].payload.to_vec(), suspended[0].identity.as_str()),
        (1, payload(3), "d")
    );
    let letters = letters(&bench);
    assert_eq!(letters.len(), 1);
    let letter = DeadLetter::open(&letters[0]).unwrap();
    assert_eq!(
        (letter.detail.as_str(), letter.payload.to_vec(), letter.id.offset),
        ("second", payload(2), Offset(2))
    );
    let audit = bench.log.audit().unwrap();
    assert_eq!(
        (audit.accepted, audit.requeued, audit.delivered, audit.dead_lettered, audit.waiting),
        (6, 1, 1, 2, 4)
    );
    assert!(audit.balances());
}

/// The rows of the newest file say that a later version wrote them.
fn age(file: &Path, version: u8) {
    const LOG: redb::TableDefinition<'_, (u8, u64), &[u8]> = redb::TableDefinition::new("log");
    let db = redb::Database::open(file).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut table = transaction.open_table(LOG).unwrap();
        let rows: Vec<_> = table
            .range((255, 0)..)
            .unwrap()
            .map(|entry| entry.map(|(key, value)| (key.value(), value.value().to_vec())).unwrap())
            .collect();
        for (key, mut row) in rows {
            row[8] = version;
            let crc = crc32c::crc32c_append(crc32c::crc32c(b"row"), &row[4..]);
            row[..4].copy_from_slice(&crc.to_le_bytes());
            table.insert(key, row.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

#[test]
fn a_log_of_another_version_is_refused_and_stays_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    write(&path);
    let newest = path.join("0000000001.redb");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // What was being made is made again.
        names.retain(|name| !name.ends_with(".tmp"));
        names.sort();
        names
    };
    let before = names();
    age(&newest, 9);
    for _ in 0..2 {
        let opened = Log::open(golden_options(&path), Arc::new(ManualClock::trusted()), Arc::new(Unobserved), None);
        let Err(OpenError::Version { path: named, found, known }) = opened else {
            panic!("it must be refused")
        };
        assert_eq!((named, found, known), (newest.clone(), 9, 2));
    }
    assert_eq!(names(), before);
    age(&newest, 2);
    let bench = open(golden_options(&path));
    assert_eq!(letters(&bench).len(), 1, "and its own version reads it as before");
}
