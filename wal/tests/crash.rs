//! Kills, torn files, flipped bits, lost files, second processes.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forebay_wal::{Log, OpenError, Options, PartitionSet, Settlement, WhenFull};
use support::{Bench, Counting, MAIN, ManualClock, copy, files, open, options, stream};

const CHILD: &str = "FOREBAY_WAL_CHILD";
const ROUNDS: u64 = 10;

fn killed_options(directory: &Path) -> Options {
    let mut options = options(directory);
    // Small files, so that kills hit rotations too.
    options.max_disk = 128 << 20;
    options.streams = vec![stream("main", 64 << 20, WhenFull::Refuse)];
    options
}

fn child(arguments: &[&str], directory: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .args(["--exact", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test by itself: stores, settles and says so until it is killed.
#[test]
fn child_that_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let mut bench = open(killed_options(Path::new(&directory)));
    let mut reader = bench.log.reader(MAIN, PartitionSet::ALL);
    let mut out = std::io::stdout();
    for round in 0_u64.. {
        let mut tickets = Vec::new();
        for n in 0..20 {
            tickets.push(bench.append(&format!("device-{n}"), &vec![b'k'; 10_000]));
        }
        for ticket in tickets {
            bench.acks.wait(ticket.batch).unwrap();
            writeln!(out, "acked {}", ticket.offset.0).unwrap();
        }
        if round % 3 == 2 {
            for record in reader.read(300_000).unwrap() {
                writeln!(out, "sent {}", record.id.offset.0).unwrap();
                bench.log.settle(MAIN, record.id.offset, Settlement::Delivered);
            }
        }
        out.flush().unwrap();
    }
}

#[test]
fn kill_9_loses_nothing_that_was_acked_and_the_ledger_balances() {
    let directory = tempfile::tempdir().unwrap();
    let mut acked = BTreeSet::new();
    let mut sent = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = child(&["child_that_is_killed"], directory.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // A different number of acks each round, so that the kill falls into different moments.
        while seen < 150 + round * 37 {
            let line = lines.next().expect("the child died by itself").unwrap();
            seen += u64::from(note(&line, &mut acked, &mut sent));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            note(&line, &mut acked, &mut sent);
        }
        let bench = open(killed_options(directory.path()));
        let found: BTreeSet<u64> = bench.read_all().iter().map(|record| record.id.offset.0).collect();
        let lost: Vec<_> = acked.difference(&sent).filter(|offset| !found.contains(offset)).collect();
        assert!(lost.is_empty(), "round {round}: acked but gone: {lost:?}");
        let audit = bench.log.audit().unwrap();
        assert!(audit.balances(), "round {round}: {audit:?}");
        assert_eq!(audit.damaged, 0);
        assert_eq!(audit.waiting, found.len() as u64);
        bench.log.close().unwrap();
    }
    assert!(!sent.is_empty());
}

fn note(line: &str, acked: &mut BTreeSet<u64>, sent: &mut BTreeSet<u64>) -> bool {
    let Some((verb, offset)) = line.split_once(' ') else { return false };
    let Ok(offset) = offset.parse() else { return false };
    match verb {
        "acked" => acked.insert(offset),
        "sent" => {
            sent.insert(offset);
            false
        }
        _ => false,
    }
}

/// Not a test by itself: tries to open a directory that is in use.
#[test]
fn child_that_is_locked_out() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let opened = Log::open(
        options(Path::new(&directory)),
        ManualClock::at(1, 1, 1, false),
        std::sync::Arc::new(Counting::default()),
        None,
    );
    println!("{}", opened.map_or_else(|error| error.to_string(), |_| "opened".into()));
}

#[test]
fn a_second_process_is_locked_out_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.store("a", b"1");
    let answer = |directory: &Path| {
        let output = child(&["child_that_is_locked_out"], directory).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(answer(directory.path()).contains("another Forebay is using"));
    let again = Log::open(
        options(directory.path()),
        bench.clock.clone(),
        std::sync::Arc::new(Counting::default()),
        None,
    );
    assert!(matches!(again, Err(OpenError::Locked { .. })));
    bench.log.close().unwrap();
    assert!(answer(directory.path()).contains("opened"));
}

#[test]
fn a_torn_commit_is_gone_whole_and_everything_before_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(50, 200);
    let before = copy(directory.path(), &directory.path().join("before"));
    let records: Vec<_> = (0..40).map(|_| vec![b't'; 3000]).collect();
    let new: Vec<_> = records.iter().map(|payload| bench.record("torn", payload)).collect();
    let ticket = bench.producer.append(&new).unwrap();
    bench.acks.wait(ticket.batch).unwrap();
    let after = copy(directory.path(), &directory.path().join("after"));
    let old = std::fs::read(&files(&before)[0]).unwrap();
    let new = std::fs::read(&files(&after)[0]).unwrap();
    // Some sectors of the last commit reached the disk, others did not: any of them may be missing.
    for seed in 0..24_u64 {
        let torn = directory.path().join(format!("torn-{seed}"));
        std::fs::create_dir_all(&torn).unwrap();
        let mut image = new.clone();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
        for sector in (0..image.len()).step_by(512) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let end = (sector + 512).min(image.len());
            if state % 3 == 0 && end <= old.len() {
                image[sector..end].copy_from_slice(&old[sector..end]);
            }
        }
        std::fs::write(torn.join(files(&after)[0].file_name().unwrap()), image).unwrap();
        let bench = open(options(&torn));
        let found = bench.read_all();
        assert!(
            found.len() == 50 || found.len() == 90,
            "seed {seed}: {} records: a batch is stored whole or not at all",
            found.len()
        );
        let audit = bench.log.audit().unwrap();
        assert!(audit.balances() && audit.damaged == 0, "seed {seed}: {audit:?}");
    }
}

/// Flips one bit wherever `needle` is in the file.
fn flip(path: &Path, needle: &[u8]) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let hits: Vec<usize> = bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(at, _)| at)
        .collect();
    for at in &hits {
        file.write_all_at(&[bytes[*at] ^ 1], *at as u64).unwrap();
    }
    hits.len()
}

#[test]
fn a_flipped_bit_costs_one_record_which_is_counted_and_the_rest_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(directory.path()));
    bench.fill(20, 100);
    bench.store("b", b"the needle in the haystack");
    bench.fill(20, 100);
    bench.log.close().unwrap();
    drop(bench);
    assert!(flip(&files(directory.path())[0], b"needle in") > 0);
    let bench = open(options(directory.path()));
    let records = bench.read_all();
    assert_eq!(records.len(), 40);
    assert!(!records.iter().any(|record| record.identity == "b"));
    bench.deliver(&records);
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.delivered, audit.damaged, audit.waiting), (40, 1, 0));
    assert!(audit.balances());
    assert_eq!(bench.log.stats().damaged.load(Ordering::Relaxed), 1);
    bench.log.close().unwrap();
    drop(bench);
    assert_eq!(open(options(directory.path())).log.audit().unwrap(), audit);
}

#[test]
fn random_flips_in_a_closed_file_never_panic_nor_yield_a_wrong_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(killed_options(directory.path()));
    for _ in 0..80 {
        bench.fill(4, 1 << 15);
    }
    bench.log.close().unwrap();
    drop(bench);
    let all = files(directory.path());
    assert!(all.len() >= 2, "{all:?}");
    for seed in 0..12_u64 {
        let damaged = copy(directory.path(), &directory.path().join(format!("flip-{seed}")));
        let first = &files(&damaged)[0];
        let len = std::fs::metadata(first).unwrap().len();
        let file = OpenOptions::new().read(true).write(true).open(first).unwrap();
        let mut state = seed + 77;
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 16) % len;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        }
        let bench = open(killed_options(&damaged));
        let mut reader = bench.log.reader(MAIN, PartitionSet::ALL);
        let mut last = None;
        // What redb no longer gives is copied by compaction after its first error, so it comes a little later.
        support::until("every record is read or counted", || {
            let records = reader.read(1 << 20).unwrap();
            for record in &records {
                assert_eq!(record.payload.len(), 1 << 15);
                assert!(record.payload[8..].iter().all(|byte| *byte == b'.'), "seed {seed}");
                assert!(last < Some(record.id.offset), "seed {seed}: out of order");
                last = Some(record.id.offset);
            }
            bench.deliver(&records);
            bench.log.audit().is_ok_and(|audit| audit.delivered + audit.damaged == 320)
        });
        let audit = bench.log.audit().unwrap();
        assert!(audit.balances() && audit.waiting == 0, "seed {seed}: {audit:?}");
        // 200 flips hit at most 200 records and a page of redb's own at worst costs none.
        assert!(audit.damaged <= 200, "seed {seed}: {audit:?}");
    }
}

fn two_files(directory: &Path) -> (Vec<std::path::PathBuf>, u64) {
    let mut bench = open(killed_options(directory));
    while files(directory).len() < 2 {
        bench.fill(4, 1 << 17);
    }
    bench.fill(4, 100);
    let accepted = bench.log.audit().unwrap().accepted;
    bench.log.close().unwrap();
    (files(directory), accepted)
}

#[test]
fn a_missing_file_is_counted_and_the_rest_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (files, accepted) = two_files(directory.path());
    std::fs::remove_file(&files[0]).unwrap();
    let bench = open(killed_options(directory.path()));
    let records = bench.read_all();
    assert!(!records.is_empty());
    assert_eq!(bench.report.damaged + records.len() as u64, accepted);
    assert!(bench.log.audit().unwrap().balances());
}

#[test]
fn a_file_that_does_not_open_is_set_aside_never_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (paths, accepted) = two_files(directory.path());
    let len = std::fs::metadata(&paths[0]).unwrap().len();
    OpenOptions::new().write(true).open(&paths[0]).unwrap().set_len(len / 2).unwrap();
    let bench = open(killed_options(directory.path()));
    let aside = format!("{}.damaged", paths[0].display());
    support::until("the file is quarantined", || Path::new(&aside).exists());
    bench.until("it has left the catalogue", |log| {
        log.audit().is_ok_and(|audit| audit.damaged > 0 && audit.balances())
    });
    let (found, damaged) = (bench.read_all().len() as u64, bench.log.audit().unwrap().damaged);
    assert_eq!(found + damaged, accepted);
    assert!(
        found > accepted / 3,
        "what the rest of the file holds is copied by compaction: {found} of {accepted}"
    );
    bench.until("it is counted", |log| log.stats().quarantined.load(Ordering::Relaxed) == 1);
    let used = bench.log.status().disk_bytes;
    bench.log.close().unwrap();
    drop(bench);
    let bench = open(killed_options(directory.path()));
    bench.until("what was quarantined counts", |log| log.status().disk_bytes >= used);
    assert!(Path::new(&aside).exists());
}

#[test]
fn a_newest_file_without_a_trace_renews_the_epoch_and_the_older_ones_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (paths, accepted) = two_files(directory.path());
    std::fs::write(&paths[1], b"not a database").unwrap();
    let mut bench = open(killed_options(directory.path()));
    let records = bench.read_all();
    assert!(!records.is_empty() && (records.len() as u64) < accepted);
    assert!(records.iter().all(|record| record.id.epoch != bench.log.epoch()));
    bench.store("a", b"new");
    assert!(bench.log.audit().unwrap().balances());
    let aside = format!("{}.damaged", paths[1].display());
    support::until("the file is quarantined", || Path::new(&aside).exists());
}

#[test]
fn a_newest_file_that_redb_refuses_gives_its_records_and_its_state_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(killed_options(directory.path()));
    let epoch = bench.log.epoch();
    while files(directory.path()).len() < 2 {
        bench.fill(4, 1 << 17);
    }
    let mut reader = bench.log.reader(MAIN, PartitionSet::ALL);
    let sent = reader.read(1 << 20).unwrap();
    bench.deliver(&sent);
    bench.fill(30, 100);
    bench.until("progress is stored", |log| log.unsettled(MAIN) == 0);
    let accepted = bench.log.audit().unwrap().accepted;
    bench.log.close().unwrap();
    drop((bench, reader));
    let newest = files(directory.path()).pop().unwrap();
    // The first page is redb's own.
    let file = OpenOptions::new().write(true).open(&newest).unwrap();
    file.write_all_at(&[0xAA; 4096], 0).unwrap();
    let mut bench = open(killed_options(directory.path()));
    assert_ne!(bench.log.epoch(), epoch, "nothing proves that the next offset was never used");
    assert!(!bench.report.clean);
    bench.until("the file has left the catalogue", |log| {
        log.stats().quarantined.load(Ordering::Relaxed) == 1
    });
    let found = bench.read_all();
    let audit = bench.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.damaged), (accepted, 0), "{audit:?}");
    assert_eq!(found.len() as u64, audit.waiting);
    assert!(found.len() + sent.len() >= accepted as usize, "{} are missing", accepted);
    assert!(found.iter().all(|record| record.id.epoch == epoch), "they keep their ids");
    assert!(audit.balances(), "{audit:?}");
    let last = found.last().unwrap().id.offset;
    assert!(bench.store("a", b"new") > last, "an offset is used twice");
}

/// The change that gives a device its ledger slot, as it lies in a row of the state.
fn slot_change(slot: u8, identity: &str) -> Vec<u8> {
    let mut change = vec![10, slot, identity.len() as u8];
    change.extend_from_slice(identity.as_bytes());
    change
}

#[test]
fn a_damaged_row_of_the_state_costs_no_record_and_no_offset_is_used_twice() {
    for damaged_last in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut bench = open(killed_options(directory.path()));
        let epoch = bench.log.epoch();
        while files(directory.path()).len() < 2 {
            bench.fill(4, 1 << 17);
        }
        let mut reader = bench.log.reader(MAIN, PartitionSet::ALL);
        let sent = reader.read(1 << 20).unwrap();
        bench.deliver(&sent);
        bench.fill(10, 100);
        bench.store("witness", b"in the row that is damaged");
        let mut more = Vec::new();
        if !damaged_last {
            bench.fill(10, 100);
            more = reader.read(1 << 20).unwrap();
            bench.deliver(&more);
            bench.fill(10, 100);
        }
        let slot = bench.log.ledger().iter().position(|line| line.identity == "witness").unwrap() as u8;
        let accepted = bench.log.audit().unwrap().accepted;
        bench.log.close().unwrap();
        drop((bench, reader));
        let newest = files(directory.path()).pop().unwrap();
        assert!(flip(&newest, &slot_change(slot, "witness")) > 0);
        let mut bench = open(killed_options(directory.path()));
        assert_ne!(bench.log.epoch(), epoch);
        assert_eq!((bench.report.quarantined, bench.report.damaged), (0, 0));
        let found = bench.read_all();
        // What was delivered after the damage may be sent again; nothing else may be missing or new.
        let again = (found.len() + sent.len() + more.len()) as u64 - accepted;
        assert!(again <= more.len() as u64, "{again} records are read again");
        assert!(found.iter().any(|record| record.identity == "witness"));
        let audit = bench.log.audit().unwrap();
        assert_eq!(
            (audit.accepted, audit.waiting, audit.requeued),
            (accepted, found.len() as u64, again),
            "{audit:?}"
        );
        assert!(audit.balances(), "{audit:?}");
        let last = found.last().unwrap().id.offset;
        assert!(bench.store("a", b"new") > last, "an offset is used twice");
        bench.deliver(&bench.read_all());
        support::until("all is settled", || bench.log.audit().unwrap().waiting == 0);
        assert!(bench.log.audit().unwrap().balances());
        support::until("the older files are unlinked", || files(directory.path()).len() == 1);
    }
}

#[test]
fn a_damaged_snapshot_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(killed_options(directory.path()));
    bench.store("witness", b"1");
    while files(directory.path()).len() < 2 {
        bench.fill(4, 1 << 17);
    }
    let accepted = bench.log.audit().unwrap().accepted;
    bench.log.close().unwrap();
    drop(bench);
    let needle = slot_change(1, "witness");
    let newest = files(directory.path()).pop().unwrap();
    let content = std::fs::read(&newest).unwrap();
    let places: Vec<usize> = (0..content.len()).filter(|at| content[*at..].starts_with(&needle)).collect();
    assert!(places.len() > 1, "the snapshot stands there once");
    for (nth, at) in places.into_iter().enumerate() {
        let damaged = copy(directory.path(), &directory.path().join(format!("damaged-{nth}")));
        let mut content = content.clone();
        content[at] ^= 1;
        std::fs::write(damaged.join(newest.file_name().unwrap()), content).unwrap();
        let bench = open(killed_options(&damaged));
        assert_eq!((bench.report.quarantined, bench.report.damaged), (0, 0));
        assert_eq!(bench.read_all().len() as u64, accepted);
        let audit = bench.log.audit().unwrap();
        assert_eq!((audit.accepted, audit.requeued, audit.waiting), (accepted, 0, accepted));
        assert!(bench.log.ledger().iter().any(|line| line.identity == "witness"));
    }
}

#[test]
fn no_file_takes_records_of_two_starts_and_an_empty_one_goes() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = open(options(&directory.path().join("live")));
    bench.store("a", b"1");
    let killed = copy(&directory.path().join("live"), &directory.path().join("killed"));
    let mut after = open(options(&killed));
    assert!(!after.report.clean);
    assert_eq!(files(&killed).len(), 2, "the file may be one that failed to sync");
    assert!(after.store("a", b"2") > forebay_wal::Offset(0));
    assert_eq!(after.read_all().len(), 2);
    after.log.close().unwrap();
    drop(after);
    let closed = std::fs::read(&files(&killed)[1]).unwrap();
    let mut after = open(options(&killed));
    assert!(after.report.clean);
    after.store("a", b"3");
    assert_eq!(
        files(&killed).len(),
        3,
        "one that was closed may be damaged, and redb does not look"
    );
    assert_eq!(std::fs::read(&files(&killed)[1]).unwrap(), closed);
    let records = after.read_all();
    assert_eq!(records.len(), 3);
    after.deliver(&records);
    after.until("the empty ones are gone", |_| files(&killed).len() == 1);
    after.log.close().unwrap();
    drop(after);
    for _ in 0..5 {
        open(options(&killed)).log.close().unwrap();
    }
    assert!(files(&killed).len() <= 2, "{} files, and nothing waits", files(&killed).len());
}

#[test]
fn what_was_being_made_is_deleted_at_open() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("next.tmp"), b"half").unwrap();
    let mut bench = open(options(directory.path()));
    bench.store("a", b"1");
    assert!(!directory.path().join("next.tmp").exists());
}

#[test]
fn a_directory_that_cannot_be_used_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for path in [file.clone(), file.join("log")] {
        let error = Log::open(
            options(&path),
            ManualClock::at(1, 1, 1, false),
            std::sync::Arc::new(Counting::default()),
            None,
        )
        .unwrap_err();
        assert!(error.to_string().contains("there is a file in its place"), "{error}");
    }
}

#[test]
fn opening_takes_no_longer_with_a_larger_backlog() {
    let directory = tempfile::tempdir().unwrap();
    let fill = |bench: &mut Bench, files_wanted: usize| {
        while files(directory.path()).len() < files_wanted {
            bench.fill(8, 1 << 16);
        }
    };
    let mut bench = open(killed_options(directory.path()));
    fill(&mut bench, 5);
    bench.log.close().unwrap();
    drop(bench);
    let started = Instant::now();
    let bench = open(killed_options(directory.path()));
    // Far from reading 40 MB in a debug build.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(bench.report.recovered > 0);
}
