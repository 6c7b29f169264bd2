//! From one file to the next: when the active one is full, and when it failed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::commit::writer::{Failure, Writer};
use crate::encoding::change::Change;
use crate::error::CommitError;
use crate::intake::batch::OpenBatch;
use crate::record::Batch;
use crate::segment::database::FileError;
use crate::shared::Shared;
use crate::sync::lock;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// The file that failed is left; another is not there yet.
pub(crate) struct Broken {
    pub(crate) reason: String,
    pub(crate) retry_at: Instant,
    pub(crate) backoff: Duration,
}

impl Writer {
    /// After an error nothing about the file is believed any more, so it is never written again.
    pub(crate) fn leave(&mut self, error: &FileError) -> CommitError {
        let reason = if error.is_full() {
            format!("the disk is full: {error}")
        } else {
            error.to_string()
        };
        tracing::error!(%error, "the log could not write; it refuses records until a new file works");
        if let Some(file) = self.shared.files.active_number() {
            // A full disk says nothing against what was written before.
            if !error.is_full() {
                self.shared.files.note(file, self.row);
                self.carrying.distrust(file);
            }
        }
        lock(&self.shared.intake).unavailable = Some(reason.clone());
        self.left_behind();
        self.shared.files.close_active().ok();
        self.shared.files.discard_ahead();
        if error.is_full() {
            self.space.drop_ballast(&self.shared);
        }
        self.broken = Some(Broken {
            reason: reason.clone(),
            retry_at: Instant::now() + RETRY_FIRST,
            backoff: RETRY_FIRST,
        });
        CommitError { reason }
    }

    /// Begins a new file from the state of the last successful commit.
    pub(crate) fn recover(&mut self) {
        let next: Vec<Change> = {
            let intake = lock(&self.shared.intake);
            let streams: Vec<u8> = lock_ids(&self.shared);
            streams
                .into_iter()
                .map(|stream| Change::Next {
                    stream,
                    next: intake.next[usize::from(stream)],
                })
                .collect()
        };
        let attached = self.shared.files.attach_again().map_err(FileError::Io);
        match attached.and_then(|()| self.begin_file(&next)) {
            Ok(()) => {
                tracing::info!(file = self.number, "the log writes again");
                self.broken = None;
                lock(&self.shared.intake).unavailable = None;
                // What the failed commit was to write of settled records still waits.
                self.shared.mark_dirty();
                self.look_around();
            }
            Err(error) => {
                self.shared.files.close_active().ok();
                self.shared.files.discard_ahead();
                if let Some(broken) = &mut self.broken {
                    broken.backoff = (broken.backoff * 2).min(RETRY_LAST);
                    broken.retry_at = Instant::now() + broken.backoff;
                    broken.reason = error.to_string();
                    lock(&self.shared.intake).unavailable = Some(broken.reason.clone());
                    tracing::debug!(%error, "no new segment yet");
                }
            }
        }
    }

    pub(crate) fn rotate_if_due(&mut self) -> Result<(), FileError> {
        self.space.active = self.shared.files.active_allocated();
        let filled = self.shared.files.active_filled();
        if filled >= self.space.file_bytes {
            return match self.shared.files.prepare() {
                // With no room for another file this one goes on: what it may still write is what frees the others.
                Err(error) if error.is_full() => Ok(()),
                _ => self.begin_file(&[]),
            };
        }
        if filled >= self.space.file_bytes / 2 && !self.shared.files.is_prepared() {
            let shared = self.shared.clone();
            self.aside.run(move || {
                // A failure is no harm yet: the switch tries again.
                if let Err(error) = shared.files.prepare() {
                    tracing::debug!(%error, "the next segment could not be made ahead");
                }
            });
        }
        Ok(())
    }

    /// Rotates now; a failure is handled as any error of the file.
    pub(crate) fn rotate(&mut self) -> Result<(), CommitError> {
        self.begin_file(&[])
            .map_err(|error| self.fail(OpenBatch::new(Batch(0)), Failure::File(error)))
    }

    /// The active file's bytes stay in the directory whatever becomes of it.
    fn left_behind(&mut self) {
        if let Some(closing) = self.shared.files.active_number() {
            self.space.closed(closing, self.shared.files.active_allocated());
            self.space.active = 0;
        }
    }

    /// Switches to a new file that begins with the state as it is after `first`.
    pub(crate) fn begin_file(&mut self, first: &[Change]) -> Result<(), FileError> {
        self.left_behind();
        self.number += 1;
        let mut state = lock(&self.shared.state).clone();
        first.iter().for_each(|change| state.apply(change));
        let file = Change::File {
            file: self.number,
            epoch: self.shared.epoch.0,
        };
        state.apply(&file);
        self.shared.files.switch(self.number, self.row + 1, &state.snapshot())?;
        self.row += 2;
        self.tails.clear();
        let mut state = lock(&self.shared.state);
        first.iter().for_each(|change| state.apply(change));
        state.apply(&file);
        drop(state);
        self.space.active = self.shared.files.active_allocated();
        self.shared.stats.rotations.fetch_add(1, Ordering::Relaxed);
        // The file left behind may have nothing waiting.
        self.settled_with(&[], &[]);
        Ok(())
    }
}

fn lock_ids(shared: &Shared) -> Vec<u8> {
    lock(&shared.state).streams.iter().map(|stream| stream.id).collect()
}
