//! Looking at a log without changing it: a running one beside its writer, or a stopped directory.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::catalogue::SegmentEntry;
use crate::clock::Timestamp;
use crate::error::ReadError;
use crate::inspect::audit::{self, Audit, LedgerLine};
use crate::inspect::cursor::Cursor;
use crate::inspect::source::{InspectError, Source};
use crate::inspect::stopped::Stopped;
use crate::io::directory::Directory;
use crate::record::{Epoch, Offset, StreamId};
use crate::segment::segments::{self, Segments};
use crate::shared::Shared;

/// Reads a log's catalogue, segments and records, and changes nothing: not a byte on disk, no counter, no progress. Cheap to
/// clone. What it says of a running log is true of one moment of the reading, not of one moment for all. Everything
/// blocks on the disk.
#[derive(Clone)]
pub struct Inspector {
    pub(crate) source: Arc<Source>,
}

/// One segment of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its name.
    pub name: String,
    /// The epoch of its records' ids, if the catalogue names the segment.
    pub epoch: Option<Epoch>,
    /// Bytes that it occupies.
    pub bytes: u64,
    /// How it stands.
    pub condition: SegmentCondition,
    /// What it holds of each stream.
    pub parts: Vec<PartReport>,
}

/// How a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentCondition {
    /// It takes the appends of a running log.
    Active,
    /// Closed properly.
    Clean,
    /// Not closed properly: it is repaired in memory when it is read.
    Unclean,
    /// The catalogue names it and it is not there.
    Missing,
    /// The catalogue names it and it is no redb database.
    Damaged,
    /// It did not open and was kept for salvage.
    Quarantined,
    /// The catalogue does not name it: it goes when the log is opened.
    Stray,
}

/// What a segment holds of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// The stream.
    pub stream: StreamId,
    /// Its first record's offset.
    pub first: Offset,
    /// The offset behind its last record.
    pub end: Offset,
    /// Records that wait; an estimate in internal streams.
    pub waiting: u64,
    /// Their encoded bytes.
    pub waiting_bytes: u64,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// Its id.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// Records of the log's own: dead letters, sessions.
    pub internal: bool,
    /// Where its segments begin, as far as there are any.
    pub oldest: Option<Offset>,
    /// The offset of the next record.
    pub next: Offset,
    /// Records that wait; an estimate in internal streams.
    pub waiting: u64,
    /// Their encoded bytes.
    pub waiting_bytes: u64,
}

impl Inspector {
    /// Looks at a directory that no process uses; while this lives, no log can be opened in it.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub fn stopped(directory: &Path) -> Result<Self, InspectError> {
        let stopped = Stopped::open(directory)?;
        Ok(Self {
            source: Arc::new(Source::Stopped(Box::new(stopped))),
        })
    }

    pub(crate) fn running(shared: Arc<Shared>) -> Self {
        let segments = Segments::new(shared.segments.directory.clone(), Arc::default());
        Self {
            source: Arc::new(Source::Running(shared, Box::new(segments))),
        }
    }

    /// Whether the log runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(&*self.source, Source::Running(..))
    }

    /// Whether it had been closed properly; `None` if it runs.
    #[must_use]
    pub fn is_clean(&self) -> Option<bool> {
        match &*self.source {
            Source::Running(..) => None,
            Source::Stopped(stopped) => Some(stopped.clean && stopped.notes.is_empty()),
        }
    }

    /// What was found wrong when a stopped log was opened, one sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        match &*self.source {
            Source::Running(..) => &[],
            Source::Stopped(stopped) => &stopped.notes,
        }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.source.directory().path().to_owned()
    }

    /// The epoch of new records' ids.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.source.with_state(|state| state.epoch))
    }

    /// The last trusted time on disk.
    #[must_use]
    pub fn last_trusted(&self) -> Option<Timestamp> {
        self.source.with_state(|state| state.trusted)
    }

    /// Bytes that the file system has left.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        self.source.directory().free().ok()
    }

    /// The streams, internal ones last.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamReport> {
        self.source.with_state(|state| {
            let report = |stream: &crate::catalog::catalogue::StreamState| {
                let (waiting, waiting_bytes) = state.waiting(stream.id);
                StreamReport {
                    id: StreamId(stream.id),
                    name: stream.name.clone(),
                    internal: stream.id >= StreamId::LOCAL.0,
                    oldest: state
                        .parts(stream.id)
                        .flat_map(|(segment, part)| part.ranges(segment.epoch))
                        .map(|range| Offset(range.first))
                        .min(),
                    next: Offset(stream.next),
                    waiting,
                    waiting_bytes,
                }
            };
            let mut streams: Vec<_> = state.streams.iter().map(report).collect();
            streams.sort_by_key(|stream| stream.id);
            streams
        })
    }

    /// The directory's segments, those of the catalogue and others, in the order of their names.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn segments(&self) -> io::Result<Vec<SegmentReport>> {
        let directory = self.source.directory();
        let entries = self.source.with_state(|state| state.segments.clone());
        let active = self.source.active();
        let mut names: Vec<String> = directory
            .list()?
            .into_iter()
            .filter(|name| {
                name.split_once(".redb")
                    .is_some_and(|(stem, _)| segments::number(&format!("{stem}.redb")).is_some())
            })
            .collect();
        names.extend(entries.iter().map(|entry| segments::name(entry.number)));
        names.sort_unstable();
        names.dedup();
        let report = |name: String| {
            let number = segments::number(&name);
            let entry = entries.iter().find(|entry| Some(entry.number) == number);
            let condition = match entry {
                _ if number.is_none() => SegmentCondition::Quarantined,
                None => SegmentCondition::Stray,
                Some(_) if active.is_some() && number == active => SegmentCondition::Active,
                Some(_) => condition(directory, &name),
            };
            SegmentReport {
                epoch: entry.map(|entry| Epoch(entry.epoch)),
                bytes: directory.allocated(&name).unwrap_or(0),
                condition,
                parts: entry.map(parts).unwrap_or_default(),
                name,
            }
        };
        Ok(names.into_iter().map(report).collect())
    }

    /// Goes through a stream's records from `from` on, settled ones included, in offset order.
    #[must_use]
    pub fn cursor(&self, stream: StreamId, from: Offset) -> Cursor {
        Cursor::new(self.source.clone(), stream, from)
    }

    /// The oldest record of a stream that waits: where it is and when it came. `None` if nothing waits.
    #[must_use]
    pub fn oldest_waiting(&self, stream: StreamId) -> Option<(Offset, Timestamp)> {
        let from = {
            let tracker = self.source.tracker();
            let tracked = tracker.streams.get(&stream.0)?;
            let delivered = if tracked.internal {
                tracked.floor
            } else {
                (0..crate::record::Partition::COUNT)
                    .map(|p| tracked.delivered_up_to(p))
                    .min()
                    .unwrap_or(tracked.floor)
            };
            let suspended = tracked.suspensions.iter().map(crate::progress::stream::SuspendedPair::next).min();
            delivered.min(suspended.unwrap_or(u64::MAX))
        };
        let mut cursor = self.cursor(stream, Offset(from));
        loop {
            // A record is enough; the block around it is what is read.
            let chunk = cursor.read(1, &|candidate| candidate.state != crate::inspect::cursor::RecordState::Settled);
            let first = chunk.found.into_iter().find_map(|found| match found {
                crate::inspect::cursor::Found::Record(kept) => Some((kept.offset, kept.record.received)),
                crate::inspect::cursor::Found::Damaged(_) => None,
            });
            if first.is_some() || chunk.is_end {
                return first;
            }
        }
    }

    /// The ledger, with what waits counted by reading.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn audit(&self) -> Result<Audit, ReadError> {
        match &*self.source {
            Source::Running(shared, _) => audit::audit(shared),
            Source::Stopped(stopped) => {
                let mut audit = audit::totals(&stopped.state);
                for stream in self.streams().iter().filter(|stream| !stream.internal) {
                    let mut cursor = self.cursor(stream.id, stream.oldest.unwrap_or_default());
                    loop {
                        let chunk = cursor.read(1 << 20, &|_| false);
                        audit.waiting += chunk.waiting;
                        if chunk.is_end {
                            break;
                        }
                    }
                }
                Ok(audit)
            }
        }
    }

    /// The ledger's lines as of the last commit.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerLine> {
        self.source.with_state(audit::lines)
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector")
            .field("directory", &self.directory())
            .finish_non_exhaustive()
    }
}

fn parts(entry: &SegmentEntry) -> Vec<PartReport> {
    let part = |part: &crate::catalog::catalogue::SegmentPart| PartReport {
        stream: StreamId(part.stream),
        first: Offset(part.ranges(entry.epoch).map(|range| range.first).min().unwrap_or(part.first)),
        end: Offset(part.ranges(entry.epoch).map(|range| range.end).max().unwrap_or(part.end)),
        waiting: part.waiting,
        waiting_bytes: part.bytes,
    };
    entry.parts.iter().map(part).collect()
}

/// What a segment's first bytes say. redb's header begins with its magic number and a byte of flags, of which the second
/// says that it was not closed.
fn condition(directory: &dyn Directory, name: &str) -> SegmentCondition {
    const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
    const NOT_CLOSED: u8 = 2;
    let mut head = [0; MAGIC.len() + 1];
    match directory.open(name).and_then(|file| file.read(0, &mut head)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => SegmentCondition::Missing,
        Ok(()) if head.starts_with(MAGIC) && head[MAGIC.len()] & NOT_CLOSED == 0 => SegmentCondition::Clean,
        Ok(()) if head.starts_with(MAGIC) => SegmentCondition::Unclean,
        _ => SegmentCondition::Damaged,
    }
}
