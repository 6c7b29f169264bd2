//! Opening a directory: from what lies in it to a running log.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::batch::{Intake, OpenBatch, Slots};
use crate::clock::random_u64;
use crate::disk::{Directory, LockGuard, RealDirectory};
use crate::files::{self, FileError, Files, Recovered};
use crate::gauge::Gauges;
use crate::progress::Tracker;
use crate::rebuild::rebuild;
use crate::retention::{BALLAST, Space};
use crate::row::{RowKind, encode_row};
use crate::shared::Shared;
use crate::state::{Change, Count, State};
use crate::writer::Writer;
use crate::{Batch, Clock, Epoch, Observer, OpenError, Options, StartReport, Stats, StreamId, Tap};

const LOCK: &str = "lock";

/// What was found in the directory.
struct Found {
    state: State,
    row: u64,
    number: u64,
    clean: bool,
    damaged: u64,
    set_aside: u64,
    /// What opening changed and no file says yet.
    changes: Vec<Change>,
    /// The newest file takes more.
    appendable: bool,
    /// It does so when there is no room for another.
    reusable: bool,
}

impl Found {
    fn apply(&mut self, change: Change) {
        self.state.apply(&change);
        self.changes.push(change);
    }
}

pub(crate) fn real_directory(options: &Options) -> Result<Arc<dyn Directory>, OpenError> {
    match RealDirectory::new(options.directory.clone()) {
        Ok(directory) => Ok(Arc::new(directory)),
        Err(source) => Err(unusable(options, source)),
    }
}

/// Opens the directory:
/// 1. the lock is taken,
/// 2. what was being made is deleted,
/// 3. the newest file that opens says what else belongs to the log,
/// 4. a file that is missing or does not open is set aside, its waiting records counted as damaged,
/// 5. the writer thread starts.
pub(crate) fn open(
    directory: Arc<dyn Directory>,
    options: Options,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    tap: Option<Box<dyn Tap>>,
) -> Result<(Arc<Shared>, JoinHandle<()>, StartReport), OpenError> {
    let started = Instant::now();
    let guard = directory.lock(LOCK).map_err(|source| unusable(&options, source))?;
    let guard = guard.ok_or_else(|| OpenError::Locked {
        path: options.directory.join(LOCK),
    })?;
    let files = Files::new(directory);
    let mut found = find(&files, &options)?;
    let damaged = found.damaged;
    let streams = match_streams(&mut found, &options)?;
    begin(&files, &mut found).map_err(|error| storage(&options, found.number, error))?;
    let report_clean = found.clean;
    let Found {
        state,
        row,
        number,
        set_aside,
        ..
    } = found;
    let recovered = streams.iter().map(|(id, _)| state.waiting(id.0).0).sum();
    let gauges = Arc::new(Gauges::new());
    for stream in &state.streams {
        let (records, bytes) = state.waiting(stream.id);
        gauges.enter(stream.id, records, bytes);
    }
    let stats = Arc::new(Stats::default());
    stats.damaged.store(damaged, Ordering::Relaxed);
    let mut next = vec![0; 256].into_boxed_slice();
    state.streams.iter().for_each(|stream| next[usize::from(stream.id)] = stream.next);
    let slots = Slots::new(state.slots.iter().map(|slot| slot.identity.as_str()), options.max_devices);
    let intake = Intake {
        open: OpenBatch::new(Batch(1)),
        next,
        slots,
        unavailable: None,
        disk_full: false,
        closing: false,
        dirty: None,
    };
    let mut space = Space::new(options.max_disk);
    let shared = Arc::new(Shared {
        streams,
        epoch: Epoch(state.epoch),
        clock,
        observer,
        files,
        intake: Mutex::new(intake),
        bell: Condvar::new(),
        tracker: Mutex::new(Tracker::new(&state, gauges.clone(), stats.clone())),
        state: Mutex::new(state),
        gauges,
        stats,
        wakes: Mutex::new(Vec::new()),
        disk_bytes: AtomicU64::new(0),
        free_bytes: AtomicU64::new(0),
        leave_active: AtomicBool::new(false),
        oldest: Mutex::new(HashMap::new()),
        alive: AtomicBool::new(true),
        ended: Mutex::new(None),
        ended_bell: Condvar::new(),
        options,
    });
    Writer::measure(&mut space, &shared).map_err(|source| unusable(&shared.options, source))?;
    let report = StartReport {
        clean: report_clean,
        recovered,
        damaged,
        set_aside,
        took: started.elapsed(),
    };
    let thread = spawn(&shared, tap, row, number, space, guard).map_err(|source| unusable(&shared.options, source))?;
    Ok((shared, thread, report))
}

fn spawn(
    shared: &Arc<Shared>,
    tap: Option<Box<dyn Tap>>,
    row: u64,
    number: u64,
    space: Space,
    guard: LockGuard,
) -> io::Result<JoinHandle<()>> {
    let writer = Writer::new(shared.clone(), tap, row, number, space);
    std::thread::Builder::new().name("wal".into()).spawn(move || {
        // Held for as long as anything may be written.
        let _guard = guard;
        writer.run();
    })
}

fn find(files: &Files, options: &Options) -> Result<Found, OpenError> {
    let names = files.directory.list().map_err(|source| unusable(options, source))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        files.directory.remove(name).map_err(|source| unusable(options, source))?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| files::number(name)).collect();
    let highest = names
        .iter()
        .filter_map(|name| files::number(name.split(".damaged").next().unwrap_or(name)))
        .max()
        .unwrap_or(0);
    let mut found = Found {
        state: State::default(),
        row: 0,
        number: highest,
        clean: true,
        damaged: 0,
        set_aside: 0,
        changes: Vec::new(),
        appendable: false,
        reusable: false,
    };
    let mut newest_lost = false;
    while let Some(number) = numbers.pop() {
        match files.open_active(number) {
            Ok(recovered) => {
                take_over(files, options, &mut found, number, &numbers, recovered, newest_lost)?;
                return Ok(found);
            }
            Err(FileError::Damaged(what)) => {
                tracing::error!(
                    file = number,
                    what,
                    "the newest log file does not open; it is kept beside the log for salvage, what was only in it is lost"
                );
                files.set_aside(number).map_err(|source| unusable(options, source))?;
                found.set_aside += 1;
                found.clean = false;
                newest_lost = true;
            }
            Err(error) => return Err(storage(options, number, error)),
        }
    }
    found.apply(Change::Epoch { epoch: random_u64() });
    Ok(found)
}

/// Takes over what the newest file says, rebuilds what is lost of it, and checks it against what is there.
fn take_over(
    files: &Files,
    options: &Options,
    found: &mut Found,
    number: u64,
    older: &[u64],
    recovered: Recovered,
    newest_lost: bool,
) -> Result<(), OpenError> {
    let Recovered { appended, incomplete, .. } = recovered;
    found.state = recovered.state;
    found.row = recovered.last_row;
    found.clean &= recovered.clean && recovered.damaged_rows == 0;
    if newest_lost || recovered.damaged_rows > 0 {
        // It cannot be proved that the next offsets were never used.
        found.apply(Change::Epoch { epoch: random_u64() });
    } else {
        // After an error from write or sync a file is never written again; a file that was not closed may be such a one.
        found.appendable = recovered.clean;
        found.reusable = true;
    }
    for file in older.iter().filter(|file| found.state.file(**file).is_none()) {
        files.unlink(*file).map_err(|source| unusable(options, source))?;
    }
    let catalogue: Vec<u64> = found
        .state
        .files
        .iter()
        .map(|file| file.number)
        .filter(|file| *file != number)
        .collect();
    for file in catalogue {
        let missing = match files.check(file) {
            Ok(()) => continue,
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => true,
            Err(FileError::Damaged(what)) => {
                tracing::error!(file, what, "a log file does not open; it is kept beside the log for salvage");
                false
            }
            Err(error) => return Err(storage(options, file, error)),
        };
        if !missing {
            files.set_aside(file).map_err(|source| unusable(options, source))?;
            found.set_aside += 1;
        }
        let parts = found.state.file(file).map(|file| file.parts.clone()).unwrap_or_default();
        let lost: u64 = parts
            .iter()
            .filter(|part| part.stream < StreamId::LOCAL.0)
            .map(|part| part.waiting)
            .sum();
        if lost > 0 {
            tracing::error!(file, lost, missing, "records of a lost log file are counted as damaged");
            found.apply(Change::Ledger {
                slot: 0,
                count: Count::Damaged,
                by: lost,
            });
            found.damaged += lost;
        }
        found.apply(Change::DropFile { file });
    }
    if incomplete {
        let damaged = rebuild(files, &mut found.state, number, appended).map_err(|error| storage(options, number, error))?;
        tracing::error!(
            file = number,
            rows = recovered.damaged_rows,
            damaged,
            "a row of the log's state was damaged; it is rebuilt from the records, some of which may be sent twice"
        );
        found.damaged += damaged;
    }
    Ok(())
}

/// Gives every configured stream its id; a stream that is gone must hold nothing.
fn match_streams(found: &mut Found, options: &Options) -> Result<Vec<(StreamId, crate::StreamOptions)>, OpenError> {
    let is_user = |id: u8| id < StreamId::LOCAL.0;
    for known in found.state.streams.iter().filter(|known| is_user(known.id)) {
        let (waiting, _) = found.state.waiting(known.id);
        if waiting > 0 && !options.streams.iter().any(|stream| stream.name == known.name) {
            return Err(OpenError::OrphanStream {
                name: known.name.clone(),
                waiting,
            });
        }
    }
    for (id, name) in [(StreamId::LOCAL, "local"), (StreamId::DEAD, "dead")] {
        if found.state.stream(id.0).is_none() {
            found.apply(Change::Stream {
                stream: id.0,
                name: name.into(),
            });
        }
    }
    let mut streams = Vec::new();
    for stream in &options.streams {
        let known = found
            .state
            .streams
            .iter()
            .find(|known| known.name == stream.name && is_user(known.id))
            .map(|known| known.id);
        let free = || (0..StreamId::LOCAL.0).find(|id| found.state.stream(*id).is_none());
        let id = known.or_else(free).unwrap_or(StreamId::LOCAL.0 - 1);
        if known.is_none() {
            found.apply(Change::Stream {
                stream: id,
                name: stream.name.clone(),
            });
        }
        streams.push((StreamId(id), stream.clone()));
    }
    Ok(streams)
}

/// Makes what opening changed durable: in the newest file, or in a new one when there is none that was closed properly.
/// On a full disk the ballast goes for that; if there is none, a file without known faults goes on.
fn begin(files: &Files, found: &mut Found) -> Result<(), FileError> {
    if !found.appendable
        && let Err(error) = files.prepare()
    {
        files.discard_ahead();
        let has_made_room = error.is_full() && files.directory.remove(BALLAST).is_ok();
        let is_possible = if has_made_room { files.prepare() } else { Err(error) };
        match is_possible {
            Err(error) if error.is_full() && found.reusable => {
                files.discard_ahead();
                found.appendable = true;
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
    }
    if found.appendable {
        if found.changes.is_empty() {
            return Ok(());
        }
        found.row += 1;
        return files.commit(&[], found.row, &encode_row(RowKind::Delta, &found.changes));
    }
    found.number += 1;
    found.apply(Change::File {
        file: found.number,
        epoch: found.state.epoch,
    });
    found.row += 1;
    files.switch(found.number, found.row, &encode_row(RowKind::Snapshot, &found.state.snapshot()))?;
    found.row += 1;
    Ok(())
}

fn unusable(options: &Options, source: io::Error) -> OpenError {
    let hint = match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "give the user that runs Forebay the right to write there, or set gateway.data_dir to a place where it may"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only: check it for errors and mount it read-write",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "there is a file in its place: remove it, or set gateway.data_dir elsewhere"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full: free some space",
        _ => "check that the disk is mounted and healthy, or set gateway.data_dir elsewhere",
    };
    OpenError::Directory {
        path: options.directory.clone(),
        hint,
        source,
    }
}

fn storage(options: &Options, number: u64, error: FileError) -> OpenError {
    match error {
        FileError::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull
            ) =>
        {
            unusable(options, source)
        }
        error => OpenError::Storage {
            path: options.directory.join(files::name(number)),
            source: Box::new(error),
        },
    }
}
