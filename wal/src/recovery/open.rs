//! Opening a directory: from what lies in it to a running log.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::catalog::catalogue::Catalogue;
use crate::catalog::replay::{Recovered, look_at, open_newest};
use crate::clock::{Clock, new_epoch};
use crate::commit::background::Background;
use crate::commit::bounds::Space;
use crate::commit::writer::Writer;
use crate::encoding::change::{Change, Count};
use crate::error::OpenError;
use crate::intake::batch::{Intake, OpenBatch};
use crate::intake::busy::BusyThreads;
use crate::intake::slots::Slots;
use crate::io::directory::Directory;
use crate::io::lock_guard::LockGuard;
use crate::io::real_directory::RealDirectory;
use crate::listener::Tap;
use crate::options::Options;
use crate::progress::gauges::Gauges;
use crate::progress::tracker::Tracker;
use crate::record::{Batch, Epoch, StreamId};
use crate::recovery::begin::begin;
use crate::recovery::counted::{self, Counting};
use crate::recovery::fault::{storage, unusable};
use crate::recovery::newest::{self, Readable, Search};
use crate::recovery::rebuild::{Newest, rebuild};
use crate::segment::database::SegmentError;
use crate::segment::identity::Provenance;
use crate::segment::remains::Remains;
use crate::segment::segments::{self, LOCK, Segments};
use crate::shared::{Repairs, Shared};
use crate::stats::{Observer, StartReport, Stats};

/// What was found in the directory.
pub(super) struct Found {
    /// There was no log.
    pub(super) is_new: bool,
    pub(super) state: Catalogue,
    pub(super) row: u64,
    pub(super) number: u64,
    pub(super) clean: bool,
    pub(super) damaged: u64,
    pub(super) quarantined: u64,
    /// Segments that do not open, with the reason.
    pub(super) broken: BTreeMap<u64, String>,
    /// What opening changed and no segment says yet.
    pub(super) changes: Vec<Change>,
    /// The newest segment takes more when there is no room for another.
    pub(super) reusable: bool,
    /// A segment of which a write failed before: what waits in it is copied to another.
    pub(super) failed: Option<u64>,
}

impl Found {
    /// Makes a change that the first commit writes.
    pub(super) fn apply(&mut self, change: Change) {
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

/// A log that is opened, and its writer, which nobody runs yet.
pub(crate) struct Prepared {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) guard: LockGuard,
    pub(crate) report: StartReport,
}

/// Opens the directory and starts the writer thread.
pub(crate) fn open(
    directory: Arc<dyn Directory>,
    options: Options,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    tap: Option<Box<dyn Tap>>,
) -> Result<(Arc<Shared>, JoinHandle<()>, StartReport), OpenError> {
    let Prepared {
        shared,
        mut writer,
        guard,
        report,
    } = prepare(directory, options, clock, observer, tap)?;
    writer.background = Background::on_a_thread("wal-aside");
    writer.removing = Background::on_a_thread("wal-removing");
    let thread = std::thread::Builder::new().name("wal".into()).spawn(move || {
        // Held for as long as anything may be written.
        let _guard = guard;
        writer.run();
    });
    let thread = thread.map_err(|source| unusable(&shared.options, source))?;
    Ok((shared, thread, report))
}

/// Opens the directory:
/// 1. the directory and its lock file are locked, before anything in it is made,
/// 2. what was being made is deleted,
/// 3. the newest segment that opens says what else belongs to the log,
/// 4. what waited in a segment that is missing is counted as damaged; one that does not open is left to the writer to repair.
pub(crate) fn prepare(
    directory: Arc<dyn Directory>,
    options: Options,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    tap: Option<Box<dyn Tap>>,
) -> Result<Prepared, OpenError> {
    let started = Instant::now();
    let guard = directory.lock(LOCK).map_err(|source| unusable(&options, source))?;
    let guard = guard.ok_or_else(|| OpenError::Locked {
        path: options.directory.join(LOCK),
    })?;
    let stats = Arc::new(Stats::default());
    let segments = Segments::new(directory, stats.clone());
    let found = find(&segments, &options, &*observer);
    // It got through, whatever it says.
    segments.note_opened();
    let mut found = found?;
    let damaged = found.damaged;
    let streams = match_streams(&mut found, &options)?;
    begin(&segments, &mut found).map_err(|error| storage(&options, found.number, error))?;
    segments.note_origin();
    counted::forget(&*segments.directory);
    let report_clean = found.clean;
    let Found {
        state,
        row,
        number,
        quarantined,
        broken,
        failed,
        is_new,
        ..
    } = found;
    let repairs = Repairs {
        damaged: broken,
        ..Repairs::default()
    };
    let recovered = streams.iter().map(|(id, _)| state.waiting(id.0).0).sum();
    let gauges = Arc::new(Gauges::new());
    for stream in &state.streams {
        let (records, bytes) = state.waiting(stream.id);
        gauges.enter(stream.id, records, bytes);
    }
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
        jobs: VecDeque::new(),
        dirty: None,
    };
    let mut space = Space::new(options.max_disk);
    let shared = Arc::new(Shared {
        streams,
        epoch: Epoch(state.epoch),
        clock,
        observer,
        segments,
        intake: Mutex::new(intake),
        bell: Condvar::new(),
        tracker: Mutex::new(Tracker::new(&state, gauges.clone(), stats.clone())),
        catalogue: Mutex::new(state),
        gauges,
        stats,
        wakes: Mutex::new(Vec::new()),
        disk_bytes: AtomicU64::new(0),
        beside_bytes: AtomicU64::new(0),
        free_bytes: AtomicU64::new(0),
        quarantined: Mutex::default(),
        repairs: Mutex::new(repairs),
        oldest: Mutex::new(HashMap::new()),
        busy: BusyThreads::default(),
        is_marked: AtomicBool::new(false),
        alive: AtomicBool::new(true),
        ended: Mutex::new(None),
        ended_bell: Condvar::new(),
        options,
    });
    space.measure(&shared).map_err(|source| unusable(&shared.options, source))?;
    let report = StartReport {
        new: is_new,
        clean: report_clean,
        recovered,
        damaged,
        quarantined,
        took: started.elapsed(),
    };
    let mut writer = Writer::new(shared.clone(), tap, row, number, space);
    failed.into_iter().for_each(|segment| writer.compaction.distrust(segment));
    Ok(Prepared {
        shared,
        writer,
        guard,
        report,
    })
}

fn find(segments: &Segments, options: &Options, observer: &dyn Observer) -> Result<Found, OpenError> {
    let names = segments.directory.list().map_err(|source| unusable(options, source))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        segments.directory.remove(name).map_err(|source| unusable(options, source))?;
    }
    let numbers: Vec<u64> = names.iter().filter_map(|name| segments::number(name)).collect();
    let highest = names
        .iter()
        .filter_map(|name| segments::number(name.split(".damaged").next().unwrap_or(name)))
        .max()
        .unwrap_or(0);
    let mut found = Found {
        is_new: highest == 0,
        state: Catalogue::default(),
        row: 0,
        number: highest,
        clean: true,
        damaged: 0,
        quarantined: 0,
        broken: BTreeMap::new(),
        changes: Vec::new(),
        reusable: false,
        failed: None,
    };
    observer.opening(0, numbers.len() as u64);
    segments.recall_failed_starts();
    let (note, is_sure) = segments.noted();
    let noted = note.segment;
    let is_lost = noted > highest;
    found.is_new &= noted == 0;
    if is_lost {
        tracing::error!(
            segment = noted,
            "the newest segment is missing: records that were only in it are lost, and their number is unknown; if it was moved, stop Forebay and put it back"
        );
        found.clean = false;
        found.number = noted;
    }
    let provenance = segments.identify(!numbers.is_empty()).map_err(|source| unusable(options, source))?;
    if provenance == Provenance::Elsewhere {
        tracing::warn!(
            "the log's directory was copied, restored or lost its lock file: what was accepted after the copy was made is not in it; new records get a new epoch"
        );
    }
    let is_behind = is_lost || provenance == Provenance::Elsewhere;
    let read = |number, last_row| {
        segments.note_opening(number);
        segments.patiently(number, || {
            if last_row == u64::MAX && is_sure {
                return open_newest(segments, number);
            }
            // A repair would write over what is still good in it.
            let looked = look_at(segments, number, last_row)?;
            Ok(Recovered {
                has_failed: true,
                clean: false,
                ..looked
            })
        })
    };
    let tell = &mut |number, error: &SegmentError| {
        tracing::error!(segment = number, %error, "the newest segment does not open; its records are searched for in its bytes");
        found.clean = false;
    };
    let searched = newest::find(segments, numbers, note, &read, tell);
    let Search { newest, silent } = searched.map_err(|(number, error)| storage(options, number, error))?;
    if let Some(mut newest) = newest {
        newest.recovered.renew |= is_behind;
        let mut counting = Counting::resumed(segments, observer);
        take_over(segments, options, observer, &mut found, newest, &mut counting)?;
        adopt(segments, options, &mut found, silent, &mut counting)?;
        return Ok(found);
    }
    for (number, _) in silent {
        tracing::error!(
            segment = number,
            "a segment does not say to which log it belongs; it is quarantined for salvage"
        );
        segments.quarantine_uncounted(number).map_err(|source| unusable(options, source))?;
        found.quarantined += 1;
    }
    found.apply(Change::Epoch { epoch: new_epoch() });
    Ok(found)
}

/// Takes the records over of segments that are newer than the newest readable state, which knows nothing of them.
fn adopt(
    segments: &Segments,
    options: &Options,
    found: &mut Found,
    silent: Vec<(u64, Remains)>,
    counting: &mut Counting<'_>,
) -> Result<(), OpenError> {
    if silent.is_empty() {
        return Ok(());
    }
    // Theirs is most likely that of the segment before them.
    let epoch = found.state.segments.last().map_or(found.state.epoch, |segment| segment.epoch);
    found.apply(Change::Epoch { epoch: new_epoch() });
    found.reusable = false;
    for (number, remains) in silent.into_iter().rev() {
        found.apply(Change::Segment { segment: number, epoch });
        let began = found.state.streams.iter().map(|stream| (stream.id, stream.next)).collect();
        let newest = Newest {
            number,
            remains: Some(&remains),
            appended: 0,
            began,
        };
        let rebuilt = rebuild(segments, &mut found.state, &newest, counting);
        found.damaged += rebuilt.map_err(|error| storage(options, number, error))?;
        found.broken.insert(number, "it does not open".into());
    }
    Ok(())
}

/// Takes over what the newest segment says, rebuilds what is lost of it, and checks it against what is there.
fn take_over(
    segments: &Segments,
    options: &Options,
    observer: &dyn Observer,
    found: &mut Found,
    newest: Readable,
    counting: &mut Counting<'_>,
) -> Result<(), OpenError> {
    let Readable {
        number,
        recovered,
        remains,
        older,
    } = newest;
    let remains = remains.as_ref();
    let Recovered {
        appended,
        incomplete,
        began,
        ..
    } = recovered;
    found.state = recovered.state;
    found.row = recovered.last_row;
    found.failed = recovered.has_failed.then_some(number);
    found.clean &= recovered.clean && recovered.damaged_rows == 0 && !incomplete;
    if recovered.renew {
        found.apply(Change::Epoch { epoch: new_epoch() });
    } else {
        found.reusable = !recovered.has_failed;
    }
    for segment in older.iter().filter(|segment| found.state.segment(**segment).is_none()) {
        if recovered.renew {
            // What was read may be older than what dropped it, or newer.
            tracing::error!(
                segment,
                "a segment is not in the catalogue, of which a part was lost; it is quarantined for salvage"
            );
            segments.quarantine_uncounted(*segment)
        } else {
            segments.unlink(*segment)
        }
        .map_err(|source| unusable(options, source))?;
    }
    let catalogue: Vec<u64> = found
        .state
        .segments
        .iter()
        .map(|segment| segment.number)
        .filter(|segment| *segment != number)
        .collect();
    let of = catalogue.len() as u64 + 1;
    for (looked_at, segment) in (1..).zip(catalogue) {
        observer.opening(looked_at, of);
        segments.note_opening(segment);
        match segments.patiently(segment, || segments.check(segment)) {
            Ok(()) => continue,
            Err(SegmentError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            // What can be read of it is copied by compaction once the log runs.
            Err(error) if error.is_lasting() => {
                tracing::error!(segment, %error, "a segment does not open; its records are searched for in its bytes");
                found.broken.insert(segment, error.to_string());
                continue;
            }
            Err(error) => return Err(storage(options, segment, error)),
        }
        let parts = found
            .state
            .segment(segment)
            .map(|segment| segment.parts.clone())
            .unwrap_or_default();
        let lost: u64 = parts
            .iter()
            .filter(|part| part.stream < StreamId::LOCAL.0)
            .map(|part| part.waiting)
            .sum();
        if lost > 0 {
            tracing::error!(
                segment,
                lost,
                "a segment is missing; the records that waited in it are counted as damaged"
            );
            found.apply(Change::Ledger {
                slot: 0,
                count: Count::Damaged,
                by: lost,
            });
            found.damaged += lost;
        }
        found.apply(Change::DropSegment { segment });
    }
    if remains.is_some() {
        found.broken.insert(number, "it does not open".into());
    }
    if incomplete {
        let mut newest = Newest {
            number,
            remains,
            appended,
            began,
        };
        let all;
        let mut rebuilt = rebuild(segments, &mut found.state, &newest, counting);
        if newest.remains.is_none()
            && let Err(error) = &rebuilt
            && error.is_lasting()
        {
            found.broken.insert(number, error.to_string());
            let looked = Remains::look_for_all(segments, number);
            (all, _) = looked.map_err(|error| storage(options, number, SegmentError::Io(error)))?;
            newest.remains = Some(&all);
            rebuilt = rebuild(segments, &mut found.state, &newest, counting);
        }
        let damaged = rebuilt.map_err(|error| storage(options, number, error))?;
        tracing::error!(
            segment = number,
            rows = recovered.damaged_rows,
            damaged,
            "a part of the catalogue was damaged; it is rebuilt from the records, some of which may be sent twice"
        );
        found.damaged += damaged;
    }
    if found.broken.contains_key(&number) {
        // Closing would write to it.
        segments.abandon_active();
    }
    Ok(())
}

/// Gives every configured stream its id; a stream that is gone must hold nothing.
fn match_streams(found: &mut Found, options: &Options) -> Result<Vec<(StreamId, crate::options::StreamOptions)>, OpenError> {
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
