//! From one segment to the next: when the active one is full, and when it failed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::commit::writer::{Failure, Writer};
use crate::encoding::change::Change;
use crate::error::CommitError;
use crate::intake::batch::OpenBatch;
use crate::record::Batch;
use crate::segment::database::SegmentError;
use crate::shared::Shared;
use crate::sync::lock;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// The segment that failed is left; another is not there yet.
pub(crate) struct Broken {
    pub(crate) reason: String,
    pub(crate) retry_at: Instant,
    pub(crate) backoff: Duration,
}

impl Writer {
    /// After an error nothing about the segment is believed any more, so it is never written again.
    pub(crate) fn leave(&mut self, error: &SegmentError) -> CommitError {
        let reason = if error.is_full() {
            format!("the disk is full: {error}")
        } else {
            error.to_string()
        };
        tracing::error!(%error, "the log could not write; it refuses records until a new segment works");
        if let Some(segment) = self.shared.segments.active_number() {
            // A full disk says nothing against what was written before.
            if !error.is_full() {
                self.shared.segments.note(segment, self.row);
                self.compaction.distrust(segment);
            }
        }
        lock(&self.shared.intake).unavailable = Some(reason.clone());
        self.left_behind();
        self.shared.segments.close_active().ok();
        self.shared.segments.discard_ahead();
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

    /// Begins a new segment from the state of the last successful commit.
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
        let attached = self.shared.segments.attach_again().map_err(SegmentError::Io);
        match attached.and_then(|()| self.begin_segment(&next)) {
            Ok(()) => {
                tracing::info!(segment = self.number, "the log writes again");
                self.broken = None;
                lock(&self.shared.intake).unavailable = None;
                // What the failed commit was to write of settled records still waits.
                self.shared.mark_dirty();
                self.look_around();
            }
            Err(error) => {
                self.shared.segments.close_active().ok();
                self.shared.segments.discard_ahead();
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

    pub(crate) fn rotate_if_due(&mut self) -> Result<(), SegmentError> {
        self.space.active = self.shared.segments.active_allocated();
        let filled = self.shared.segments.active_filled();
        if filled >= self.space.segment_bytes {
            return match self.shared.segments.prepare() {
                // With no room for another segment this one goes on: what it may still write is what frees the others.
                Err(error) if error.is_full() => Ok(()),
                _ => self.begin_segment(&[]),
            };
        }
        if filled >= self.space.segment_bytes / 2 && !self.shared.segments.is_prepared() {
            let shared = self.shared.clone();
            self.background.run(move || {
                // A failure is no harm yet: the switch tries again.
                if let Err(error) = shared.segments.prepare() {
                    tracing::debug!(%error, "the next segment could not be made ahead");
                }
            });
        }
        Ok(())
    }

    /// Rotates now; a failure is handled as any error of the segment.
    pub(crate) fn rotate(&mut self) -> Result<(), CommitError> {
        self.begin_segment(&[])
            .map_err(|error| self.fail(OpenBatch::new(Batch(0)), Failure::Segment(error)))
    }

    /// The active segment's bytes stay in the directory whatever becomes of it.
    fn left_behind(&mut self) {
        if let Some(closing) = self.shared.segments.active_number() {
            self.space.closed(closing, self.shared.segments.active_allocated());
            self.space.active = 0;
        }
    }

    /// Switches to a new segment that begins with the state as it is after `first`.
    pub(crate) fn begin_segment(&mut self, first: &[Change]) -> Result<(), SegmentError> {
        self.left_behind();
        self.number += 1;
        let mut state = lock(&self.shared.catalogue).clone();
        first.iter().for_each(|change| state.apply(change));
        let segment = Change::Segment {
            segment: self.number,
            epoch: self.shared.epoch.0,
        };
        state.apply(&segment);
        self.shared.segments.switch(self.number, self.row + 1, &state.snapshot())?;
        self.row += 2;
        self.page_fill.clear();
        let mut state = lock(&self.shared.catalogue);
        first.iter().for_each(|change| state.apply(change));
        state.apply(&segment);
        drop(state);
        self.space.active = self.shared.segments.active_allocated();
        self.shared.stats.rotations.fetch_add(1, Ordering::Relaxed);
        // The segment left behind may have nothing waiting.
        self.settled_with(&[], &[]);
        Ok(())
    }
}

fn lock_ids(shared: &Shared) -> Vec<u8> {
    lock(&shared.catalogue).streams.iter().map(|stream| stream.id).collect()
}
