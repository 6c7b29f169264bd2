//! Why a log does not open, for the one that can act.

use std::io;

use crate::error::OpenError;
use crate::format;
use crate::options::Options;
use crate::segment::database::SegmentError;
use crate::segment::segments;

/// What a failure of the directory means.
pub(super) fn unusable(options: &Options, source: io::Error) -> OpenError {
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

/// What a failure of a segment means.
pub(super) fn storage(options: &Options, number: u64, error: SegmentError) -> OpenError {
    match error {
        SegmentError::Io(source) if source.kind() == io::ErrorKind::WouldBlock => OpenError::Locked {
            path: options.directory.join(segments::name(number)),
        },
        SegmentError::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull
            ) =>
        {
            unusable(options, source)
        }
        SegmentError::Version(found) => OpenError::Version {
            path: options.directory.join(segments::name(number)),
            found,
            known: format::VERSION,
        },
        error => OpenError::Storage {
            path: options.directory.join(segments::name(number)),
            source: Box::new(error),
        },
    }
}
