//! A directory that no process uses, opened for looking only: its segments are opened for reading, so that nothing here
//! can write to them, and what redb wants to repair stays in memory.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::catalog::catalogue::Catalogue;
use crate::catalog::replay::look_at;
use crate::inspect::source::InspectError;
use crate::io::directory::Directory;
use crate::io::read_only::ReadOnly;
use crate::progress::gauges::Gauges;
use crate::progress::tracker::Tracker;
use crate::recovery::counted::Counting;
use crate::recovery::newest::{self, Readable};
use crate::recovery::rebuild::{Newest, rebuild};
use crate::segment::database::SegmentError;
use crate::segment::segments::{self, LOCK, Segments};
use crate::stats::Stats;

/// A stopped log, held so that none is started in it meanwhile.
pub(crate) struct Stopped {
    pub(crate) segments: Segments,
    pub(crate) state: Catalogue,
    pub(crate) tracker: Mutex<Tracker>,
    /// Whether it had been closed properly.
    pub(crate) clean: bool,
    /// What was found wrong on the way, one sentence each.
    pub(crate) notes: Vec<String>,
    /// Shared: several may look, none may write. `None` if the directory has no lock file, so nobody ever used it.
    _lock: Option<File>,
}

impl Stopped {
    /// Opens what lies in `path` as [`crate::Log::open`] would, and leaves every byte of it as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, InspectError> {
        let unusable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => InspectError::NoLog { path: path.to_owned() },
            _ => InspectError::Directory {
                path: path.to_owned(),
                source,
            },
        };
        let directory: Arc<dyn Directory> = Arc::new(ReadOnly { path: path.to_owned() });
        let names = directory.list().map_err(unusable)?;
        let lock = lock_shared(path).map_err(unusable)?;
        let Lock::Free(lock) = lock else {
            return Err(InspectError::Locked { path: path.join(LOCK) });
        };
        let numbers: Vec<u64> = names.iter().filter_map(|name| segments::number(name)).collect();
        if numbers.is_empty() {
            return Err(InspectError::NoLog { path: path.to_owned() });
        }
        let segments = Segments::new(directory, Arc::default());
        let mut notes = Vec::new();
        let (note, _) = segments.noted();
        if numbers.last().is_some_and(|newest| *newest < note.segment) {
            notes.push(format!(
                "{} was the newest segment and is missing: records that were only in it are lost",
                segments::name(note.segment)
            ));
        }
        let read = |number, last_row| look_at(&segments, number, last_row);
        let tell = &mut |number, error: &SegmentError| {
            notes.push(format!(
                "{} is the newest segment and does not open ({error}); when the gateway starts, its whole records are copied, and \
                 `forebay log salvage` shows it",
                segments::name(number)
            ));
        };
        let searched = newest::find(&segments, numbers, note, &read, tell).map_err(|(number, error)| match error {
            SegmentError::Io(source) => unusable(source),
            error => InspectError::Unreadable {
                path: path.join(segments::name(number)),
                what: format!("{error}; ask the Forebay that wrote it"),
            },
        })?;
        if let Some(newest) = searched.newest {
            return Self::with(segments, newest, notes, lock);
        }
        Err(InspectError::Unreadable {
            path: path.to_owned(),
            what: notes.join("; "),
        })
    }

    fn with(segments: Segments, newest: Readable, mut notes: Vec<String>, lock: Option<File>) -> Result<Self, InspectError> {
        let Readable {
            number,
            recovered,
            remains,
            ..
        } = newest;
        let path = segments.directory.path().to_owned();
        let mut state = recovered.state;
        if recovered.incomplete {
            notes.push(format!(
                "rows of the catalogue in {} are damaged; what they said is rebuilt from the records, here in memory only",
                segments::name(number)
            ));
            let newest = Newest {
                number,
                remains: remains.as_ref(),
                appended: recovered.appended,
                began: recovered.began,
            };
            rebuild(&segments, &mut state, &newest, &mut Counting::once()).map_err(|error| InspectError::Unreadable {
                path,
                what: error.to_string(),
            })?;
        }
        let tracker = Tracker::new(&state, Arc::new(Gauges::new()), Arc::new(Stats::default()));
        Ok(Self {
            segments,
            tracker: Mutex::new(tracker),
            state,
            clean: recovered.clean,
            notes,
            _lock: lock,
        })
    }
}

enum Lock {
    Free(Option<File>),
    Held,
}

fn lock_shared(directory: &Path) -> io::Result<Lock> {
    let file = match File::open(directory.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Free(None)),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Lock::Free(Some(file))),
        Err(TryLockError::WouldBlock) => Ok(Lock::Held),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
