//! `state.redb`, shared by the checkpointer and those who read it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use forebay_wal::{Checkpoint, CheckpointError};
use tokio::sync::Notify;

/// The checkpoint, as long as it is open.
pub(crate) struct StateFile {
    path: PathBuf,
    open: RwLock<Option<Arc<Checkpoint>>>,
    /// A damaged one was found at the start and moved away.
    quarantined: bool,
    hurry: Notify,
}

/// Why the local state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The checkpoint or the log failed.
    #[error("sessions and retained messages in {path} could not be read; check the disk (`dmesg`), its free space and the file's owner")]
    Storage {
        /// The checkpoint.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StateFile {
    /// Opens it. Blocks on the disk.
    ///
    /// # Errors
    /// See [`StateError`].
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Storage {
            path: path.to_owned(),
            source,
        };
        let opened = Checkpoint::open_verified(path);
        let quarantined = matches!(opened, Err(CheckpointError::Damaged { .. }));
        let checkpoint = match opened {
            Err(error @ CheckpointError::Damaged { .. }) => {
                let kept = quarantine(path).map_err(|error| failed(error.into()))?;
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    kept = %kept.display(),
                    "the checkpoint of sessions and retained messages is damaged: it is quarantined, and made again from what the log still has"
                );
                Checkpoint::open(path)
            }
            opened => opened,
        };
        let checkpoint = checkpoint.map_err(|error| failed(error.into()))?;
        Ok(Self {
            path: path.to_owned(),
            open: RwLock::new(Some(Arc::new(checkpoint))),
            quarantined,
            hurry: Notify::new(),
        })
    }

    /// Whether a damaged one was found at the start and moved away.
    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    /// The checkpoint; `None` while it is closed. Keep it for one read only: it cannot be opened again while it is in use.
    pub(crate) fn current(&self) -> Option<Arc<Checkpoint>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the checkpoint to be written at once, because much waits for it.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Waits for [`StateFile::hurry`].
    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// The checkpoint, opened again if it was closed. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`]; also while the one that was closed is still being read.
    pub(super) fn reopened(&self) -> Result<Arc<Checkpoint>, CheckpointError> {
        if let Some(checkpoint) = self.current() {
            return Ok(checkpoint);
        }
        let checkpoint = Arc::new(Checkpoint::open(&self.path)?);
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&checkpoint));
        Ok(checkpoint)
    }

    /// What it takes on disk, in bytes.
    pub(super) fn allocated(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |found| found.blocks() * 512)
    }

    /// Closes it, as it must be after a failed write and at the end.
    pub(super) fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The error for the operator, with the file.
    pub(super) fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> StateError {
        StateError::Storage {
            path: self.path.clone(),
            source: Box::new(error),
        }
    }
}

/// Moves a damaged checkpoint away, over one of an earlier time.
fn quarantine(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    let kept = path.with_file_name(name);
    std::fs::rename(path, &kept)?;
    Ok(kept)
}
