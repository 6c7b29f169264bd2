//! `state.redb`, shared by what brings it up and those who read it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use forebay_wal::{Checkpoint, CheckpointError};

/// The checkpoint, as long as it is open.
pub(crate) struct StateFile {
    path: PathBuf,
    open: RwLock<Option<Arc<Checkpoint>>>,
}

impl StateFile {
    /// Opens it. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        Ok(Self {
            path: path.to_owned(),
            open: RwLock::new(Some(Arc::new(Checkpoint::open(path)?))),
        })
    }

    /// The checkpoint; none while it is closed. Held for one look only, or it cannot be opened again.
    pub(crate) fn current(&self) -> Option<Arc<Checkpoint>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The checkpoint, opened again if it was closed. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`]; also while somebody still reads the one that was closed.
    pub(crate) fn reopened(&self) -> Result<Arc<Checkpoint>, CheckpointError> {
        if let Some(checkpoint) = self.current() {
            return Ok(checkpoint);
        }
        let checkpoint = Arc::new(Checkpoint::open(&self.path)?);
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&checkpoint));
        Ok(checkpoint)
    }

    /// Closes it, as it must be after a failed write and at the end.
    pub(crate) fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
