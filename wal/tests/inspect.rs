//! Looking at a log, running or stopped: everything is seen as it stands, damage is named, nothing is changed.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use forebay_wal::{
    Chunk, DeadLetter, Finding, Found, InspectError, Inspector, Kept, Log, Offset, OpenError, RecordState, SegmentCondition, Settlement,
    StreamId, SuspensionKey, Verified, VerifyStep,
};
use support::{Bench, MAIN, copy, files, open, options, until};

/// Every record of a stream, and the damage.
fn all(inspector: &Inspector, stream: StreamId) -> (Vec<Kept>, Vec<String>) {
    let mut cursor = inspector.cursor(stream, Offset(0));
    let (mut kept, mut damage) = (Vec::new(), Vec::new());
    loop {
        let Chunk { found, is_end, .. } = cursor.read(64 << 10, &|_| true);
        for found in found {
            match found {
                Found::Record(record) => kept.push(record),
                Found::Damaged(what) => damage.push(format!("{} {:?} {}", what.segment, what.offsets, what.what)),
            }
        }
        if is_end {
            return (kept, damage);
        }
    }
}

fn verify(inspector: &Inspector) -> (Verified, Vec<Finding>) {
    let mut findings = Vec::new();
    let verified = inspector.verify(&mut |step| {
        if let VerifyStep::Finding(finding) = step {
            findings.push(finding);
        }
        true
    });
    (verified, findings)
}

fn states(kept: &[Kept]) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for kept in kept {
        *states.entry(format!("{:?}", kept.state)).or_default() += 1;
    }
    states
}

/// Every name in the directory, with its bytes and its time of change.
fn snapshot(directory: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let changed = entry.metadata().unwrap().modified().unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, (std::fs::read(entry.path()).unwrap(), changed))
        })
        .collect()
}

/// A log of several files with delivered, held, dead and waiting records: 10 devices, `count` records.
fn used(directory: &Path, count: usize) -> Bench {
    let mut bench = open(forebay_wal::Options {
        max_disk: 128 << 20,
        ..options(directory)
    });
    // In commits of their own, so that the files are as small as they may be.
    for _ in 0..count / 500 {
        bench.fill(500, 2000);
    }
    let records = bench.read_all();
    let suspension = SuspensionKey {
        stream: MAIN,
        route: "route".into(),
        identity: "device-3".into(),
    };
    bench.log.suspend(suspension, Offset(0));
    for record in &records[..count - 100] {
        match record.identity.as_str() {
            "device-3" => continue,
            "device-4" if record.id.offset.0 < 50 => {
                let dead = Settlement::Dead {
                    reason: "topic-too-long",
                    detail: "shorten it".into(),
                };
                bench.log.settle(MAIN, record.id.offset, dead);
            }
            _ => {
                bench.log.settle(MAIN, record.id.offset, Settlement::Delivered);
            }
        }
    }
    bench
}

#[test]
fn a_running_log_is_seen_as_it_stands_and_is_not_changed_by_it() {
    let directory = tempfile::tempdir().unwrap();
    let bench = used(directory.path(), 2000);
    let inspector = bench.log.inspector();
    assert!(inspector.is_running() && inspector.is_clean().is_none());
    until("the dead letters are committed", || all(&inspector, StreamId::DEAD).0.len() == 5);

    let (kept, damage) = all(&inspector, MAIN);
    assert_eq!(damage, Vec::<String>::new());
    let offsets: Vec<u64> = kept.iter().map(|kept| kept.offset.0).collect();
    assert_eq!(offsets, (0..2000).collect::<Vec<_>>(), "in order, settled ones included");
    // 190 of device-3 are held, and 10 of its last hundred.
    assert_eq!(
        states(&kept),
        BTreeMap::from([("Settled".into(), 1710), ("Suspended".into(), 200), ("Waiting".into(), 90)])
    );
    let letters = all(&inspector, StreamId::DEAD).0;
    let letter = DeadLetter::open(&letters[0].record).unwrap();
    assert_eq!((letter.id.offset, letter.reason.as_str()), (Offset(4), "topic-too-long"));

    let report = inspector.segments().unwrap();
    assert_eq!(report.last().unwrap().condition, SegmentCondition::Active);
    let waiting: u64 = report
        .iter()
        .flat_map(|file| &file.parts)
        .filter(|part| part.stream == MAIN)
        .map(|part| part.waiting)
        .sum();
    let streams = inspector.streams();
    assert_eq!(
        (streams[0].name.as_str(), streams[0].next, streams[0].waiting),
        ("main", Offset(2000), waiting)
    );
    assert_eq!(inspector.oldest_waiting(MAIN).unwrap().0, Offset(3));

    let (verified, findings) = verify(&inspector);
    assert_eq!(findings, []);
    assert!(verified.records >= 2005 && verified.audit.unwrap().balances(), "{verified:?}");

    // Nothing of what was looked at moved anything.
    assert_eq!(inspector.audit().unwrap(), bench.log.audit().unwrap());
    assert_eq!(bench.log.audit().unwrap().waiting, 290);
    bench.log.close().unwrap();
}

#[test]
fn a_filter_chooses_and_a_cursor_goes_on_with_what_comes() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(500, 100);
    let inspector = bench.log.inspector();
    let mut cursor = inspector.cursor(MAIN, Offset(100));
    let mut count = 0;
    while let Chunk { is_end: false, found, .. } = cursor.read(1 << 12, &|candidate| candidate.identity == "device-7") {
        count += found.len();
    }
    assert_eq!((count, cursor.position()), (40, Offset(500)));
    bench.store("device-7", b"later");
    let chunk = cursor.read(1 << 20, &|candidate| candidate.state == RecordState::Waiting);
    let Found::Record(kept) = &chunk.found[0] else {
        panic!("{chunk:?}")
    };
    assert_eq!((kept.offset, &kept.record.payload[..]), (Offset(500), &b"later"[..]));
}

#[test]
fn a_stopped_log_is_seen_alike_and_stays_byte_for_byte_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let bench = used(directory.path(), 6000);
    until("the dead letters are committed", || {
        all(&bench.log.inspector(), StreamId::DEAD).0.len() == 5
    });
    let before = bench.log.audit().unwrap();
    // Once closed properly, once as a kill leaves it.
    let elsewhere = tempfile::tempdir().unwrap();
    let killed = copy(directory.path(), elsewhere.path());
    let running = all(&bench.log.inspector(), MAIN).0;
    bench.log.close().unwrap();
    drop(bench);
    for (path, is_clean) in [(directory.path(), true), (killed.as_path(), false)] {
        let bytes = snapshot(path);
        let inspector = Inspector::stopped(path).unwrap();
        assert_eq!((inspector.is_running(), inspector.is_clean()), (false, Some(is_clean)));
        let (kept, damage) = all(&inspector, MAIN);
        assert_eq!(damage, Vec::<String>::new());
        assert_eq!(kept.last().unwrap().record.payload, running.last().unwrap().record.payload);
        assert!(kept.len() <= running.len());
        if is_clean {
            assert_eq!(states(&kept)["Waiting"], 90);
            assert_eq!(states(&kept)["Suspended"], 600);
            assert_eq!(inspector.audit().unwrap(), before);
        }
        assert!(inspector.audit().unwrap().balances());
        let conditions: Vec<_> = inspector.segments().unwrap().into_iter().map(|file| file.condition).collect();
        let last = if is_clean {
            SegmentCondition::Clean
        } else {
            SegmentCondition::Unclean
        };
        assert_eq!(conditions.last(), Some(&last), "{conditions:?}");
        let (verified, findings) = verify(&inspector);
        assert_eq!(findings, []);
        assert!(verified.segments as usize == conditions.len() && verified.records >= kept.len() as u64);
        assert_eq!(all(&inspector, StreamId::DEAD).0.len(), 5);
        assert!(inspector.oldest_waiting(MAIN).is_some() && inspector.ledger().len() == 11);
        drop(inspector);
        assert!(snapshot(path) == bytes, "something in {path:?} was changed");
    }
}

#[test]
fn a_log_in_use_a_missing_one_and_an_empty_one_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Inspector::stopped(directory.path()), Err(InspectError::NoLog { .. })));
    assert!(matches!(
        Inspector::stopped(&directory.path().join("nowhere")),
        Err(InspectError::NoLog { .. })
    ));
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "nothing is made by looking"
    );

    let mut bench = open(options(directory.path()));
    bench.fill(10, 10);
    assert!(matches!(Inspector::stopped(directory.path()), Err(InspectError::Locked { .. })));
    bench.log.close().unwrap();
    drop(bench);
    let (one, other) = (
        Inspector::stopped(directory.path()).unwrap(),
        Inspector::stopped(directory.path()).unwrap(),
    );
    drop(one);
    let clock = support::ManualClock::at(1_700_000_000_000, 1, 1000, true);
    let opened = Log::open(
        options(directory.path()),
        clock,
        std::sync::Arc::new(support::Counting::default()),
        None,
    );
    assert!(
        matches!(opened, Err(OpenError::Locked { .. })),
        "no log is opened beside one who looks"
    );
    drop(other);
    assert_eq!(open(options(directory.path())).read_all().len(), 10);
}

/// Flips a bit in the payload of the record that holds `marker`.
fn damage(file: &Path, marker: &[u8]) {
    let mut bytes = std::fs::read(file).unwrap();
    let places: Vec<usize> = (0..bytes.len() - marker.len())
        .filter(|at| bytes[*at..].starts_with(marker))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + marker.len()] ^= 1;
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn damage_is_named_by_file_offset_and_kind_and_hides_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(300, 200);
    bench.store("device-1", b"the one that breaks: here");
    bench.fill(300, 200);
    bench.log.close().unwrap();
    drop(bench);
    let file = files(directory.path()).pop().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    damage(&file, b"the one that breaks");

    let inspector = Inspector::stopped(directory.path()).unwrap();
    let (kept, damage) = all(&inspector, MAIN);
    assert_eq!((kept.len(), damage), (600, vec![format!("{name} 300..301 its checksum is wrong")]));
    let (verified, findings) = verify(&inspector);
    assert_eq!(verified.records, 600);
    let is_named = |at: Option<(StreamId, u64)>, what: &str| {
        findings
            .iter()
            .any(|finding| finding.segment.as_deref() == Some(&name) && finding.at == at && finding.what.contains(what))
    };
    assert!(is_named(Some((MAIN, 300)), "the record's checksum is wrong"), "{findings:?}");
    assert!(
        is_named(None, "page checksums") || is_named(None, "check of its pages"),
        "{findings:?}"
    );
    assert_eq!(verified.findings as usize, findings.len());
    // It waits until a reader meets it, so the ledger balances.
    assert_eq!(inspector.audit().unwrap().waiting, 601);
}

#[test]
fn a_file_that_is_gone_or_does_not_open_is_named_and_the_others_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let bench = used(directory.path(), 16_000);
    bench.log.close().unwrap();
    drop(bench);
    let all_files = files(directory.path());
    assert!(all_files.len() >= 3, "{all_files:?}");
    let whole = all(&Inspector::stopped(directory.path()).unwrap(), MAIN).0.len();
    std::fs::remove_file(&all_files[0]).unwrap();
    let mut bytes = std::fs::read(&all_files[1]).unwrap();
    bytes[..4096].fill(7);
    std::fs::write(&all_files[1], bytes).unwrap();
    std::fs::write(directory.path().join("0000000077.redb.damaged"), b"set aside").unwrap();

    let inspector = Inspector::stopped(directory.path()).unwrap();
    let (kept, damage) = all(&inspector, MAIN);
    assert!(!kept.is_empty() && kept.len() < whole && damage.len() == 2, "{damage:?}");
    let conditions: BTreeMap<_, _> = inspector
        .segments()
        .unwrap()
        .into_iter()
        .map(|file| (file.name, file.condition))
        .collect();
    let name = |nth: usize| all_files[nth].file_name().unwrap().to_str().unwrap();
    assert_eq!(conditions[name(0)], SegmentCondition::Missing);
    assert_eq!(conditions[name(1)], SegmentCondition::Damaged);
    assert_eq!(conditions["0000000077.redb.damaged"], SegmentCondition::Quarantined);
    let (_, findings) = verify(&inspector);
    for nth in [0, 1] {
        let named = findings
            .iter()
            .any(|finding| finding.segment.as_deref() == Some(name(nth)) && finding.what.contains("cannot be read"));
        assert!(named, "{findings:?}");
    }
    assert!(
        findings.iter().any(|finding| finding.what.contains("does not balance")),
        "{findings:?}"
    );
}

#[test]
fn what_goes_to_the_device_is_counted_with_redbs_pages() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(1000, 1000);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let stats = bench.log.stats();
    // Counted when the devices have been told.
    until("all is counted", || count(&stats.payload_bytes) == 1_000_000);
    assert!(count(&stats.device_bytes) > count(&stats.bytes_committed), "{stats:?}");
    assert!(count(&stats.device_syncs) >= count(&stats.commits), "{stats:?}");
}
