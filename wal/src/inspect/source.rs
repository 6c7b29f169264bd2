//! What is looked at: a running log, or a stopped directory.

use crate::catalog::catalogue::Catalogue;
use crate::inspect::stopped::Stopped;
use crate::io::directory::Directory;
use crate::progress::tracker::Tracker;
use crate::segment::blocks::Blocks;
use crate::segment::database::SegmentError;
use crate::segment::segments::Segments;
use crate::shared::Shared;
use crate::sync::lock;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};

pub(crate) enum Source {
    /// Beside the writer; closed segments are opened anew, so that the bridge's stay open.
    Running(Arc<Shared>, Box<Segments>),
    Stopped(Box<Stopped>),
}

impl Source {
    pub(crate) fn directory(&self) -> &dyn Directory {
        match self {
            Self::Running(shared, _) => shared.segments.directory.as_ref(),
            Self::Stopped(stopped) => stopped.segments.directory.as_ref(),
        }
    }

    pub(crate) fn with_state<T>(&self, look: impl FnOnce(&Catalogue) -> T) -> T {
        match self {
            Self::Running(shared, _) => look(&lock(&shared.catalogue)),
            Self::Stopped(stopped) => look(&stopped.state),
        }
    }

    pub(crate) fn tracker(&self) -> MutexGuard<'_, Tracker> {
        match self {
            Self::Running(shared, _) => lock(&shared.tracker),
            Self::Stopped(stopped) => lock(&stopped.tracker),
        }
    }

    /// The segment that a running log appends to.
    pub(crate) fn active(&self) -> Option<u64> {
        match self {
            Self::Running(shared, _) => shared.segments.active_number(),
            Self::Stopped(_) => None,
        }
    }

    /// The segments through which `number` is read.
    pub(crate) fn segments_for(&self, number: u64) -> &Segments {
        match self {
            Self::Running(shared, own) => {
                if shared.segments.active_number() == Some(number) {
                    &shared.segments
                } else {
                    own
                }
            }
            Self::Stopped(stopped) => &stopped.segments,
        }
    }

    pub(crate) fn blocks(&self, number: u64, stream: u8, from: u64, end: u64, bytes: usize) -> Result<Blocks, SegmentError> {
        self.segments_for(number).blocks(number, stream, from, end, bytes)
    }
}

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// A process uses it: ask that one.
    #[error("a running Forebay holds {path}")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// There is nothing.
    #[error("there is no log in {path}")]
    NoLog {
        /// The directory.
        path: PathBuf,
    },
    /// The system said no.
    #[error("the log's directory {path} cannot be read")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No segment of it opens.
    #[error("no segment in {path} opens: {what}")]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the newest that was tried says.
        what: String,
    },
}
