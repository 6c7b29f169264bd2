//! The error path, on a disk that fails when told to.
#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::error::{AppendError, CommitError, ReadError};
use crate::io::directory::{Directory, StorageFile};
use crate::io::lock_guard::LockGuard;
use crate::io::real_directory::RealDirectory;
use crate::listener::CommitListener;
use crate::log::{Log, Opened};
use crate::options::{Options, StreamOptions, WhenFull};
use crate::record::{Batch, NewRecord, PartitionSet, Settlement, StreamId};
use crate::recovery::open::prepare;
use crate::segment::database::SegmentError;
use crate::segment::segments::{NEXT, Segments, name};
use crate::sync::lock;
use crate::testing::{ManualClock, Unobserved};

/// What the disk does: 0 well, 1 full, 2 broken, 3 a bug: it panics, 4 slow.
#[derive(Debug, Default)]
struct Mood(AtomicU8);

impl Mood {
    fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::SeqCst) {
            0 | 4 => Ok(()),
            1 => Err(io::ErrorKind::StorageFull.into()),
            _ => Err(io::Error::other("a bad sector")),
        }
    }
}

#[derive(Debug)]
struct Moody {
    real: RealDirectory,
    mood: Arc<Mood>,
    free: AtomicU64,
    /// How often a file was opened.
    opened: AtomicU64,
    /// The threads that made files, by the names of both.
    made: Mutex<Vec<(String, Option<String>)>>,
    /// What was done with whole files, and in between what listeners heard.
    events: Arc<Mutex<Vec<&'static str>>>,
    /// Where calls of a kind stand until they may go on.
    making: Gate,
    removing: Gate,
    /// What was opened before the last time that this rose is stale.
    age: Arc<AtomicU64>,
}

/// Lets nobody pass while it is closed.
#[derive(Debug, Default)]
struct Gate {
    is_closed: AtomicBool,
    standing: AtomicU64,
}

impl Gate {
    fn pass(&self) {
        self.standing.fetch_add(1, Ordering::SeqCst);
        until("the gate opens", || !self.is_closed.load(Ordering::SeqCst));
        self.standing.fetch_sub(1, Ordering::SeqCst);
    }

    fn set_closed(&self, is_closed: bool) {
        self.is_closed.store(is_closed, Ordering::SeqCst);
    }

    fn is_stood_at(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst) && self.standing.load(Ordering::SeqCst) > 0
    }
}

#[derive(Debug)]
struct MoodyFile {
    real: Arc<dyn StorageFile>,
    mood: Arc<Mood>,
    /// Ends the process of whoever opens it with redb, which begins with its first bytes.
    is_deadly: bool,
    opened: u64,
    age: Arc<AtomicU64>,
}

/// Names the segment that ends the process which opens it.
const DEADLY: &str = "FOREBAY_WAL_DEADLY";

fn is_deadly(name: &str) -> bool {
    std::env::var_os(DEADLY).is_some_and(|deadly| deadly == name)
}

impl Moody {
    fn happens(&self, what: &'static str) {
        lock(&self.events).push(what);
    }
}

impl Directory for Moody {
    fn path(&self) -> &Path {
        self.real.path()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.mood.check()?;
        self.happens("create");
        self.making.pass();
        let thread = std::thread::current().name().map(str::to_owned);
        lock(&self.made).push((name.to_owned(), thread));
        Ok(Arc::new(MoodyFile {
            is_deadly: false,
            real: self.real.create(name)?,
            mood: self.mood.clone(),
            opened: self.age.load(Ordering::SeqCst),
            age: self.age.clone(),
        }))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(MoodyFile {
            is_deadly: is_deadly(name),
            real: self.real.open(name)?,
            mood: self.mood.clone(),
            opened: self.age.load(Ordering::SeqCst),
            age: self.age.clone(),
        }))
    }
    fn open_to_write(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(MoodyFile {
            is_deadly: is_deadly(name),
            real: self.real.open_to_write(name)?,
            mood: self.mood.clone(),
            opened: self.age.load(Ordering::SeqCst),
            age: self.age.clone(),
        }))
    }
    fn confirm(&self, name: &str, file: &dyn StorageFile) -> io::Result<()> {
        self.real.confirm(name, file)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.mood.check()?;
        self.happens("rename");
        self.real.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.happens("remove");
        self.removing.pass();
        self.real.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.happens("sync of the directory");
        self.real.sync()
    }
    fn allocated(&self, name: &str) -> io::Result<u64> {
        self.real.allocated(name)
    }
    fn free(&self) -> io::Result<u64> {
        assert_ne!(self.mood.0.load(Ordering::SeqCst), 3, "a bug");
        Ok(self.free.load(Ordering::SeqCst))
    }
    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.real.reserve(name, bytes)
    }
    fn lock(&self, name: &str) -> io::Result<Option<LockGuard>> {
        self.real.lock(name)
    }
    fn note(&self, name: &str, at: u64, text: &str) -> io::Result<()> {
        self.real.note(name, at, text)
    }
    fn noted(&self, name: &str) -> io::Result<Vec<u8>> {
        self.real.noted(name)
    }
}

impl MoodyFile {
    /// As a server says that has another file in its place by now.
    fn check_age(&self) -> io::Result<()> {
        if self.opened < self.age.load(Ordering::SeqCst) {
            return Err(rustix::io::Errno::STALE.into());
        }
        Ok(())
    }
}

impl StorageFile for MoodyFile {
    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.is_deadly && offset == 0 && out.len() < 4096 {
            std::process::abort();
        }
        self.check_age()?;
        self.real.read(offset, out)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.mood.check()?;
        self.check_age()?;
        self.real.write(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.mood.check()?;
        self.real.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.mood.check()?;
        if self.mood.0.load(Ordering::SeqCst) == 4 {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.real.sync()
    }
    fn allocated(&self) -> io::Result<u64> {
        self.real.allocated()
    }
    fn id(&self) -> io::Result<Option<(u64, u64)>> {
        self.real.id()
    }
}

#[derive(Default)]
struct Heard(Mutex<(Vec<Batch>, Vec<Batch>)>);

impl CommitListener for Heard {
    fn committed(&self, batch: Batch) {
        lock(&self.0).0.push(batch);
    }
    fn failed(&self, batch: Batch, _error: &CommitError) {
        lock(&self.0).1.push(batch);
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

struct Rig {
    log: Log,
    directory: Arc<Moody>,
    clock: Arc<ManualClock>,
    heard: Arc<Heard>,
}

fn rig(path: &Path, when_full: WhenFull) -> Rig {
    rig_of(path, when_full, 1 << 30)
}

fn moody(path: &Path) -> Arc<Moody> {
    Arc::new(Moody {
        real: RealDirectory::new(path.to_owned()).unwrap(),
        mood: Arc::default(),
        free: AtomicU64::new(1 << 40),
        opened: AtomicU64::new(0),
        made: Mutex::default(),
        events: Arc::default(),
        making: Gate::default(),
        removing: Gate::default(),
        age: Arc::default(),
    })
}

fn options(path: &Path, when_full: WhenFull, max_disk: u64) -> Options {
    Options {
        directory: path.to_owned(),
        max_disk,
        keep_free: 1 << 30,
        commit_wait: Duration::ZERO,
        max_devices: 10,
        streams: vec![StreamOptions {
            name: "main".into(),
            max_bytes: 1 << 30,
            max_age: None,
            when_full,
        }],
    }
}

fn rig_of(path: &Path, when_full: WhenFull, max_disk: u64) -> Rig {
    let directory = moody(path);
    let options = options(path, when_full, max_disk);
    let clock = Arc::new(ManualClock::trusted());
    let Opened { log, .. } = Log::open_in(directory.clone(), options, clock.clone(), Arc::new(Unobserved), None).unwrap();
    Rig {
        log,
        directory,
        clock,
        heard: Arc::default(),
    }
}

impl Rig {
    fn append(&self, payload: &[u8]) -> Result<Batch, AppendError> {
        let record = NewRecord {
            stream: StreamId(0),
            received: self.clock.now(),
            identity: "device",
            route: "route",
            topic: "t",
            payload,
            qos: 1,
            retain: false,
            expiry: None,
            properties: &[],
        };
        self.log.producer(self.heard.clone()).append(&[record]).map(|ticket| ticket.batch)
    }

    fn outcome(&self, batch: Batch) -> bool {
        until("the batch is decided", || {
            let heard = lock(&self.heard.0);
            heard.0.contains(&batch) || heard.1.contains(&batch)
        });
        lock(&self.heard.0).0.contains(&batch)
    }

    fn payloads(&self) -> Vec<Vec<u8>> {
        self.try_payloads().unwrap()
    }

    fn try_payloads(&self) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut reader = self.log.reader(StreamId(0), PartitionSet::ALL);
        let records = reader.read(usize::MAX)?;
        Ok(records.iter().map(|record| record.payload.to_vec()).collect())
    }
}

fn fails_and_recovers(mood: u8) {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    assert!(rig.outcome(rig.append(b"before").unwrap()));
    rig.directory.mood.0.store(mood, Ordering::SeqCst);
    assert!(!rig.outcome(rig.append(b"lost").unwrap()), "a failed batch was acked");
    until("appends are refused", || {
        matches!(rig.append(b"refused"), Err(AppendError::Unavailable { .. }))
    });
    assert!(rig.log.status().unavailable.is_some());
    assert_eq!(rig.payloads(), [b"before".to_vec()], "the file left behind stays readable");
    rig.directory.mood.0.store(0, Ordering::SeqCst);
    until("the log writes again", || rig.log.status().unavailable.is_none());
    assert!(rig.outcome(rig.append(b"after").unwrap()));
    assert_eq!(rig.payloads(), [b"before".to_vec(), b"after".to_vec()]);
    let audit = rig.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.waiting), (2, 2));
    rig.log.close().unwrap();
    drop(rig);
    let rig = self::rig(directory.path(), WhenFull::Refuse);
    assert_eq!(rig.payloads(), [b"before".to_vec(), b"after".to_vec()]);
    assert!(rig.log.audit().unwrap().balances());
}

#[test]
fn a_full_disk_fails_the_batch_and_the_log_goes_on_by_itself_when_there_is_space() {
    fails_and_recovers(1);
}

#[test]
fn a_broken_write_fails_the_batch_and_the_log_goes_on_in_a_new_file() {
    fails_and_recovers(2);
}

#[test]
fn a_failed_commit_burns_its_offsets() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    assert!(rig.outcome(rig.append(b"0").unwrap()));
    rig.directory.mood.0.store(2, Ordering::SeqCst);
    assert!(!rig.outcome(rig.append(b"1").unwrap()));
    rig.directory.mood.0.store(0, Ordering::SeqCst);
    until("the log writes again", || rig.log.status().unavailable.is_none());
    assert!(rig.outcome(rig.append(b"2").unwrap()));
    let mut reader = rig.log.reader(StreamId(0), PartitionSet::ALL);
    let offsets: Vec<u64> = reader.read(usize::MAX).unwrap().iter().map(|record| record.id.offset.0).collect();
    assert_eq!(offsets[0], 0);
    assert!(offsets[1] >= 2, "offset 1 was used twice: {offsets:?}");
}

#[test]
fn settlements_made_while_the_disk_fails_are_kept_and_written_later() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    assert!(rig.outcome(rig.append(b"0").unwrap()));
    let mut reader = rig.log.reader(StreamId(0), PartitionSet::ALL);
    let record = reader.read(usize::MAX).unwrap().remove(0);
    rig.directory.mood.0.store(2, Ordering::SeqCst);
    rig.log.settle(record.stream, record.offset, Settlement::Delivered);
    until("the failure shows", || rig.log.status().unavailable.is_some());
    rig.directory.mood.0.store(0, Ordering::SeqCst);
    until("the log writes again", || rig.log.status().unavailable.is_none());
    rig.log.close().unwrap();
    drop((reader, rig));
    let rig = self::rig(directory.path(), WhenFull::Refuse);
    assert!(rig.payloads().is_empty());
    let audit = rig.log.audit().unwrap();
    assert_eq!((audit.accepted, audit.delivered), (1, 1));
    assert!(audit.balances());
}

#[test]
fn d_keep_free_refuses_before_the_file_system_is_full_says_so_and_admits_again() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    assert!(rig.outcome(rig.append(b"0").unwrap()));
    rig.directory.free.store(1 << 30, Ordering::SeqCst);
    if let Ok(batch) = rig.append(b"1") {
        assert!(!rig.outcome(batch));
    }
    until("appends are refused", || rig.append(b"2") == Err(AppendError::DiskFull));
    let why = rig.log.status().unavailable.unwrap();
    assert!(why.contains("the file system is full") && !why.contains("raise"), "{why}");
    rig.directory.free.store(1 << 40, Ordering::SeqCst);
    until("appends are admitted", || rig.append(b"3").is_ok());
    assert!(rig.log.audit().unwrap().balances());
}

#[test]
fn a_panic_in_the_writer_thread_fails_what_waits_and_never_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    assert!(rig.outcome(rig.append(b"stored").unwrap()));
    assert!(rig.log.is_alive());
    rig.directory.mood.0.store(3, Ordering::SeqCst);
    // Unless the writer met the bug first, which says the same sooner.
    if let Ok(batch) = rig.append(b"in the batch that panics") {
        assert!(!rig.outcome(batch), "a batch whose commit panicked was acked");
    }
    until("the log says that it is dead", || !rig.log.is_alive());
    assert!(matches!(rig.append(b"later"), Err(AppendError::Unavailable { .. })));
    assert!(rig.log.status().unavailable.is_some_and(|reason| reason.contains("restart")));
    assert!(rig.log.close().is_err());
    let again = self::rig(directory.path(), WhenFull::Refuse);
    assert_eq!(again.payloads(), [b"stored".to_vec()]);
    assert!(again.log.audit().unwrap().balances());
}

#[test]
fn a_listener_that_panics_harms_no_other() {
    struct Bad;
    impl CommitListener for Bad {
        fn committed(&self, _batch: Batch) {
            panic!("a bug in a listener");
        }
        fn failed(&self, _batch: Batch, _error: &CommitError) {
            panic!("a bug in a listener");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    rig.log.producer(Arc::new(Bad)).append(&[]).unwrap();
    assert!(rig.outcome(rig.append(b"1").unwrap()));
    assert!(rig.outcome(rig.append(b"2").unwrap()));
    assert!(rig.log.is_alive());
    rig.log.close().unwrap();
    assert!(!rig.log.is_alive());
}

#[test]
fn a_file_left_after_an_error_still_counts_in_max_disk() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    for _ in 0..8 {
        assert!(rig.outcome(rig.append(&vec![1; 1 << 20]).unwrap()));
    }
    let before = rig.log.status().disk_bytes;
    rig.directory.mood.0.store(2, Ordering::SeqCst);
    assert!(!rig.outcome(rig.append(b"lost").unwrap()));
    rig.directory.mood.0.store(0, Ordering::SeqCst);
    until("the log writes again", || rig.log.status().unavailable.is_none());
    assert!(rig.outcome(rig.append(b"after").unwrap()));
    assert!(
        rig.log.status().disk_bytes >= before,
        "{before} bytes before, now {:?}",
        rig.log.status()
    );
}

#[test]
fn the_next_file_is_made_beside_the_commits() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    let first = lock(&rig.directory.made).len();
    let payload = vec![0; 1 << 18];
    let made = || lock(&rig.directory.made).get(first).cloned();
    // A little more than half of a file, which asks for the next one; far from the switch, which would make it itself.
    for _ in 0..140 {
        assert!(rig.outcome(rig.append(&payload).unwrap()));
    }
    until("the next file is made", || made().is_some());
    assert_eq!(made(), Some((NEXT.to_owned(), Some("wal-aside".to_owned()))));
}

#[test]
fn a_file_that_does_not_open_is_not_tried_at_every_read() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path(), WhenFull::Refuse);
    let segments = Segments::new(rig.directory.clone(), Arc::default());
    std::fs::write(directory.path().join(name(7)), vec![1; 1 << 16]).unwrap();
    let before = rig.directory.opened.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert!(matches!(segments.check(7), Err(SegmentError::Damaged(_))));
    }
    assert_eq!(rig.directory.opened.load(Ordering::SeqCst), before + 1);
}

/// Opened while it is being closed, a segment looks as if it had not been closed, and redb reads all of it to repair a view.
#[test]
fn e21_a_reader_at_the_tail_never_opens_a_segment_that_is_being_closed() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig_of(directory.path(), WhenFull::Refuse, 128 << 20);
    rig.directory.mood.0.store(4, Ordering::SeqCst);
    let stats = rig.log.stats();
    let is_done = AtomicBool::new(false);
    let (stored, read) = std::thread::scope(|scope| {
        let mut reader = rig.log.reader(StreamId(0), PartitionSet::ALL);
        let (log, is_done) = (&rig.log, &is_done);
        let reading = scope.spawn(move || {
            let mut read = 0;
            loop {
                let was_done = is_done.load(Ordering::SeqCst);
                let records = reader.read(64 << 10).unwrap();
                for record in &records {
                    log.settle(record.stream, record.offset, Settlement::Delivered);
                }
                read += records.len();
                if records.is_empty() && was_done {
                    return read;
                }
            }
        });
        // Commits follow each other without a pause, so that the reader is still at the records of one when the next rotates.
        let payload = vec![b'.'; 30 << 10];
        let (mut stored, mut waiting) = (0, std::collections::VecDeque::new());
        while stats.rotations.load(Ordering::Relaxed) < 12 {
            waiting.push_back(rig.append(&payload).unwrap());
            if waiting.len() > 64 {
                stored += usize::from(waiting.pop_front().is_some_and(|batch| rig.outcome(batch)));
            }
        }
        stored += waiting.into_iter().filter(|batch| rig.outcome(*batch)).count();
        is_done.store(true, Ordering::SeqCst);
        (stored, reading.join().unwrap())
    });
    assert_eq!(read, stored);
    assert_eq!(
        stats.repairs.load(Ordering::Relaxed),
        0,
        "a closed segment was repaired while the log ran"
    );
}

/// Where the child of the next test finds its log.
const CHILD: &str = "FOREBAY_WAL_DEADLY_CHILD";

/// Not a test by itself: opens a log, reads all of it, waits until the deadly segment is quarantined, and says what it read.
#[test]
fn child_that_opens_a_deadly_segment() {
    let (Some(directory), Some(deadly)) = (std::env::var_os(CHILD), std::env::var_os(DEADLY)) else {
        return;
    };
    let directory = Path::new(&directory);
    let rig = rig_of(directory, WhenFull::Refuse, 128 << 20);
    let mut reader = rig.log.reader(StreamId(0), PartitionSet::ALL);
    let mut read = std::collections::BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < deadline, "read {read:?}");
        reader.rewind();
        while let Ok(records) = reader.read(1 << 20) {
            if records.is_empty() {
                break;
            }
            read.extend(records.iter().map(|record| record.payload[0]));
        }
        if read.len() == 24 && !directory.join(&deadly).exists() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let audit = rig.log.audit().unwrap();
    println!("read {} of {}, {} damaged", read.len(), audit.accepted, audit.damaged);
    rig.log.close().unwrap();
}

#[test]
fn k14_a_segment_at_which_two_starts_died_is_not_opened_again_and_costs_no_record() {
    for which in [0, 1, usize::MAX] {
        let directory = tempfile::tempdir().unwrap();
        let rig = rig_of(directory.path(), WhenFull::Refuse, 128 << 20);
        for number in 0..24 {
            assert!(rig.outcome(rig.append(&vec![number; 1 << 20]).unwrap()));
        }
        rig.log.close().unwrap();
        drop(rig);
        let mut names: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".redb"))
            .collect();
        names.sort();
        assert!(names.len() >= 3, "{names:?}");
        let deadly = names[which.min(names.len() - 1)].clone();
        let start = || {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["tests::faults::child_that_opens_a_deadly_segment", "--exact", "--nocapture"])
                .env(CHILD, directory.path())
                .env(DEADLY, &deadly)
                .output();
            child.unwrap()
        };
        assert!(!start().status.success() && !start().status.success(), "the segment is not deadly");
        let third = start();
        let said = String::from_utf8_lossy(&third.stdout).into_owned();
        assert!(
            third.status.success(),
            "{deadly}: {said} {}",
            String::from_utf8_lossy(&third.stderr)
        );
        assert!(said.contains("read 24 of 24, 0 damaged"), "{deadly}: {said}");
        let is_kept = directory.path().join(format!("{deadly}.damaged")).exists();
        assert!(is_kept, "{deadly} is gone");
    }
}

/// Notes among the directory's events when its batch is acked.
struct Ack(Arc<Mutex<Vec<&'static str>>>);

impl CommitListener for Ack {
    fn committed(&self, _batch: Batch) {
        lock(&self.0).push("ack");
    }
    fn failed(&self, _batch: Batch, error: &CommitError) {
        panic!("{error}");
    }
}

#[test]
fn k18_acks_leave_before_segments_are_made_renamed_or_removed() {
    let directory = tempfile::tempdir().unwrap();
    let disk = moody(directory.path());
    let options = options(directory.path(), WhenFull::Refuse, 128 << 20);
    let clock = Arc::new(ManualClock::trusted());
    let prepared = prepare(disk.clone(), options, clock.clone(), Arc::new(Unobserved), None).unwrap();
    let (mut writer, log) = (prepared.writer, Log::stepped(prepared.shared.clone()));
    let mut reader = log.reader(StreamId(0), PartitionSet::ALL);
    let (mut made, mut removed) = (0, 0);
    for round in 1..=240 {
        let record = NewRecord {
            stream: StreamId(0),
            received: clock.now(),
            identity: "device",
            route: "route",
            topic: "t",
            payload: &[7; 1 << 18],
            qos: 1,
            retain: false,
            expiry: None,
            properties: &[],
        };
        log.producer(Arc::new(Ack(disk.events.clone()))).append(&[record]).unwrap();
        lock(&disk.events).clear();
        let batch = writer.swap(&mut lock(&writer.shared.clone().intake));
        writer.commit(batch).unwrap();
        let events = std::mem::take(&mut *lock(&disk.events));
        assert_eq!(events.first(), Some(&"ack"), "{events:?}");
        // So many at once that more than the spare one of their segments is not needed.
        if round % 80 == 0 {
            for record in reader.read(usize::MAX).unwrap() {
                log.settle(record.stream, record.offset, Settlement::Delivered);
            }
        }
        writer.commit_progress().unwrap();
        let more = std::mem::take(&mut *lock(&disk.events));
        let count = |what| events.iter().chain(&more).filter(|event| **event == what).count();
        made += count("create");
        removed += count("remove");
    }
    let rotations = log.stats().rotations.load(Ordering::Relaxed);
    assert!(rotations >= 3, "{rotations} rotations");
    assert!(made >= 2 && removed >= 1, "{made} made, {removed} removed: too little happens");
}

#[test]
fn k18_no_ack_waits_for_a_removal_or_a_making_that_stands() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig_of(directory.path(), WhenFull::Refuse, 128 << 20);
    let payload = vec![b'.'; 1 << 18];
    let store = |count: usize| (0..count).for_each(|_| assert!(rig.outcome(rig.append(&payload).unwrap())));
    // Half of a segment asks for the next one.
    rig.directory.making.set_closed(true);
    for _ in 0..24 {
        store(1);
        if rig.directory.making.is_stood_at() {
            break;
        }
    }
    until("the next segment is being made", || rig.directory.making.is_stood_at());
    let rotations = || rig.log.stats().rotations.load(Ordering::Relaxed);
    let before = rotations();
    // Beyond the size of a segment, and not twice it.
    store(12);
    assert!(
        rig.directory.making.is_stood_at() && rotations() == before,
        "it was not waited with"
    );
    rig.directory.making.set_closed(false);
    rig.directory.removing.set_closed(true);
    let mut reader = rig.log.reader(StreamId(0), PartitionSet::ALL);
    let settle = |reader: &mut crate::read::reader::Reader| {
        for record in reader.read(usize::MAX).unwrap() {
            rig.log.settle(record.stream, record.offset, Settlement::Delivered);
        }
    };
    // Until two segments are not needed: one is kept as the spare one.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !rig.directory.removing.is_stood_at() {
        assert!(Instant::now() < deadline, "nothing is removed");
        store(8);
        settle(&mut reader);
    }
    store(64);
    assert!(rig.directory.removing.is_stood_at(), "it was not waited with");
    let gone = || {
        std::fs::read_dir(directory.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("gone-"))
            .count()
    };
    assert!(gone() > 0);
    rig.directory.removing.set_closed(false);
    until("it is gone", || gone() == 0);
    assert_eq!(rig.log.audit().unwrap().damaged, 0);
    rig.log.close().unwrap();
}

#[test]
fn k22_a_stale_file_is_opened_again_and_costs_no_acked_record() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig_of(directory.path(), WhenFull::Refuse, 128 << 20);
    for number in 0..12 {
        assert!(rig.outcome(rig.append(&vec![number; 1 << 20]).unwrap()));
    }
    assert_eq!(rig.payloads().len(), 12);
    let mut acked = 12;
    for round in 0..3_u8 {
        rig.directory.age.fetch_add(1, Ordering::SeqCst);
        // A commit of the log's own may meet the stale file first: then reading waits until another segment has begun.
        until("what was acked is read", || {
            rig.try_payloads().is_ok_and(|found| found.len() == acked)
        });
        // The active segment is left as after any error; if it was left before, this one is stored in the next.
        let is_stored = rig.append(b"perhaps lost").is_ok_and(|batch| rig.outcome(batch));
        until("the log writes again", || rig.log.status().unavailable.is_none());
        assert!(rig.outcome(rig.append(&[round]).unwrap()));
        acked += 1 + usize::from(is_stored);
    }
    until("what was acked is read", || {
        rig.try_payloads().is_ok_and(|found| found.len() == acked)
    });
    let audit = rig.log.audit().unwrap();
    assert!(audit.balances() && audit.damaged == 0 && audit.waiting == acked as u64, "{audit:?}");
    rig.log.close().unwrap();
}
