//! The writer thread: swaps the open batch out, makes room, commits, and says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::commit::background::Background;
use crate::commit::compaction::Compaction;
use crate::commit::idle_commit::IdleCommit;
use crate::commit::retention::{Room, Space};
use crate::commit::rotation::Broken;
use crate::commit::write::Extra;
use crate::error::CommitError;
use crate::intake::batch::{OpenBatch, WRITER_STOPPED};
use crate::intake::job::Job;
use crate::listener::{CommittedBatch, Tap};
use crate::record::{Batch, StreamId};
use crate::segment::database::SegmentError;
use crate::segment::page_fill::PageFill;
use crate::shared::Shared;
use crate::sync::{guarded, lock};

/// How long settled records may wait for a commit of their own, besides `commit_wait`: where records come, their commit
/// takes the settled ones along, and each commit is wear.
const PROGRESS_WAIT: Duration = Duration::from_millis(200);
/// How long the compaction of a segment rests between its parts, so that acks do not wait for it.
const COMPACTION_WAIT: Duration = Duration::from_millis(50);
/// Bytes at which a commit waits for no more.
const ENOUGH: usize = 1 << 20;
/// How often the writer looks around when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// A buffer larger than this is not kept for the next batch.
const SPARE: usize = 8 << 20;

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tap: Option<Box<dyn Tap>>,
    /// Key of the last row of the state.
    pub(crate) row: u64,
    /// The newest number that any segment had.
    pub(crate) number: u64,
    pub(crate) space: Space,
    spare: OpenBatch,
    pub(crate) broken: Option<Broken>,
    pub(crate) compaction: Compaction,
    pub(crate) background: Background,
    next_tick: Instant,
    next_compaction: Instant,
    idle_commit: IdleCommit,
    pub(crate) page_fill: PageFill,
}

/// What there is to do.
enum Work {
    Commit(OpenBatch),
    Progress,
    Compact,
    Job(Job),
    Tick,
    Close(OpenBatch),
}

/// Why a batch was not committed.
pub(crate) enum Failure {
    /// Nothing was written.
    Refused(String),
    /// The segment failed.
    Segment(SegmentError),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, tap: Option<Box<dyn Tap>>, row: u64, number: u64, space: Space) -> Self {
        Self {
            shared,
            tap,
            row,
            number,
            space,
            spare: OpenBatch::new(Batch(0)),
            broken: None,
            compaction: Compaction::default(),
            background: Background::here(),
            next_tick: Instant::now(),
            next_compaction: Instant::now(),
            idle_commit: IdleCommit::new(),
            page_fill: PageFill::default(),
        }
    }

    /// Runs until the log is closed. A panic, which is a fault of ours, fails what waits and ends the log instead of
    /// leaving everybody waiting.
    pub(crate) fn run(mut self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let result = result.unwrap_or_else(|_| Err(self.stop_after_panic()));
        // Whoever waits for one hears that the log is closed.
        lock(&self.shared.intake).jobs.clear();
        self.shared.alive.store(false, Ordering::Release);
        *lock(&self.shared.ended) = Some(result);
        self.shared.ended_bell.notify_all();
    }

    fn stop_after_panic(&mut self) -> CommitError {
        tracing::error!("{WRITER_STOPPED}");
        let open = {
            let mut intake = lock(&self.shared.intake);
            intake.unavailable = Some(WRITER_STOPPED.into());
            let number = Batch(intake.open.number.0 + 1);
            std::mem::replace(&mut intake.open, OpenBatch::new(number))
        };
        drop(open);
        self.background.wait();
        // What was committed is whole; the directory's lock goes with this thread, so nothing may stay open.
        catch_unwind(AssertUnwindSafe(|| self.shared.segments.close_active().ok())).ok();
        CommitError {
            reason: WRITER_STOPPED.into(),
        }
    }

    fn serve(&mut self) -> Result<(), CommitError> {
        loop {
            crate::panic_if_asked("wal");
            match self.next_work() {
                Work::Commit(batch) => {
                    self.commit(batch).ok();
                }
                Work::Progress => {
                    self.commit_progress().ok();
                }
                Work::Compact => {
                    self.compact_step().ok();
                    self.next_compaction = Instant::now() + COMPACTION_WAIT;
                }
                Work::Job(job) => self.do_job(job),
                Work::Tick => self.tick(),
                Work::Close(batch) => return self.finish(batch),
            }
            self.reject_late();
        }
    }

    /// What came in after a failure would wait for as long as it lasts: says so now.
    pub(crate) fn reject_late(&mut self) {
        let Some(broken) = &self.broken else { return };
        let error = CommitError {
            reason: broken.reason.clone(),
        };
        let shared = self.shared.clone();
        let late = self.swap(&mut lock(&shared.intake));
        self.reject(late, &error);
    }

    fn next_work(&mut self) -> Work {
        let shared = self.shared.clone();
        let mut intake = lock(&shared.intake);
        loop {
            let now = Instant::now();
            if intake.closing {
                return Work::Close(self.swap(&mut intake));
            }
            if self.broken.is_none()
                && let Some(job) = intake.jobs.pop_front()
            {
                return Work::Job(job);
            }
            let tick_at = self.broken.as_ref().map_or(self.next_tick, |broken| broken.retry_at);
            if tick_at <= now {
                self.next_tick = now + self.tick_every();
                return Work::Tick;
            }
            let commit_at = intake
                .open
                .since
                .filter(|_| !intake.open.is_empty())
                .map(|since| since + shared.options.commit_wait);
            let wait = shared.options.commit_wait;
            let is_early = commit_at.is_some() && intake.open.is_lone() && self.idle_commit.take(now, wait);
            if is_early || commit_at.is_some_and(|at| at <= now) || intake.open.data.len() >= ENOUGH {
                shared.unmark(&mut intake);
                return Work::Commit(self.swap(&mut intake));
            }
            // A broken log keeps its settlements in memory until there is a segment again.
            let progress_at = intake
                .dirty
                .filter(|_| self.broken.is_none())
                .map(|since| since + PROGRESS_WAIT + shared.options.commit_wait);
            if progress_at.is_some_and(|at| at <= now) {
                shared.unmark(&mut intake);
                return Work::Progress;
            }
            let compact_at = (self.compaction.is_under_way() && self.broken.is_none()).then_some(self.next_compaction);
            if compact_at.is_some_and(|at| at <= now) {
                return Work::Compact;
            }
            let until = [commit_at, progress_at, compact_at]
                .into_iter()
                .flatten()
                .fold(tick_at, Instant::min);
            intake = shared
                .bell
                .wait_timeout(intake, until - now)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }

    fn tick_every(&self) -> Duration {
        if self.space.full { PROGRESS_WAIT } else { TICK }
    }

    pub(crate) fn swap(&mut self, intake: &mut crate::intake::batch::Intake) -> OpenBatch {
        intake.swap(std::mem::replace(&mut self.spare, OpenBatch::new(Batch(0))))
    }

    pub(crate) fn finish(&mut self, batch: OpenBatch) -> Result<(), CommitError> {
        let mut result = self.commit(batch);
        if result.is_ok() {
            result = self.commit_progress();
        }
        self.background.wait();
        self.shared.segments.discard_ahead();
        let active = self.shared.segments.active_number();
        if let Err(error) = self.shared.segments.close_active() {
            tracing::warn!(%error, "the active segment could not be closed properly; it is repaired when it is opened again");
            // The page cache may show it closed: it takes no more records.
            if let Some(segment) = active {
                self.shared.segments.note(segment, self.row);
            }
        }
        result
    }

    pub(crate) fn tick(&mut self) {
        if self.broken.is_some() {
            self.recover();
        } else {
            self.look_around();
            self.look_for_compaction();
        }
    }

    /// Commits a batch and everything that became of earlier records:
    /// 1. room is made within the bounds, or the batch refused,
    /// 2. blocks and the changes of the catalogue are written with one sync,
    /// 3. the state in memory takes those changes over,
    /// 4. the listeners hear of it, then the tap, then the readers.
    pub(crate) fn commit(&mut self, batch: OpenBatch) -> Result<(), CommitError> {
        self.commit_beside(batch, &Extra::Nothing)
    }

    pub(crate) fn commit_beside(&mut self, batch: OpenBatch, beside: &Extra<'_>) -> Result<(), CommitError> {
        if let Some(broken) = &self.broken {
            let reason = broken.reason.clone();
            return Err(self.fail(batch, Failure::Refused(reason)));
        }
        let result = match self.make_room(&batch) {
            Room::Enough => self.store(&batch, beside),
            Room::None(reason) => Err(Failure::Refused(reason)),
        };
        match result {
            Ok(()) => {
                self.announce(batch);
                Ok(())
            }
            Err(failure) => Err(self.fail(batch, failure)),
        }
    }

    /// Commits what became of records; new ones wait.
    pub(crate) fn commit_progress(&mut self) -> Result<(), CommitError> {
        let empty = OpenBatch::new(Batch(0));
        self.evict_over_bound();
        self.store(&empty, &Extra::Nothing).map_err(|failure| self.fail(empty, failure))
    }

    pub(crate) fn wake(&self, is_meant: impl Fn(StreamId) -> bool) {
        let wakes: Vec<_> = lock(&self.shared.wakes)
            .iter()
            .filter(|(stream, _)| is_meant(*stream))
            .map(|(_, wake)| wake.clone())
            .collect();
        wakes.iter().for_each(|wake| guarded("a reader's wake", || wake()));
    }

    fn announce(&mut self, mut batch: OpenBatch) {
        let number = batch.number;
        for listener in batch.listeners.drain(..) {
            guarded("a listener", || listener.committed(number));
        }
        if !batch.records.is_empty() {
            self.idle_commit.committed(Instant::now());
        }
        let mut streams = [false; 256];
        let mut records = 0;
        for record in &batch.records {
            streams[usize::from(record.stream)] = true;
            records += u64::from(record.stream < StreamId::LOCAL.0);
        }
        let bytes = batch.data.len() as u64;
        self.shared.stats.records_committed.fetch_add(records, Ordering::Relaxed);
        self.shared.stats.bytes_committed.fetch_add(bytes, Ordering::Relaxed);
        self.shared.stats.payload_bytes.fetch_add(batch.payload, Ordering::Relaxed);
        if let Some(since) = batch.since.filter(|_| !batch.records.is_empty()) {
            guarded("the observer", || {
                self.shared.observer.committed(since.elapsed(), batch.records.len() as u64, bytes)
            });
        }
        if let Some(tap) = self.tap.as_mut().filter(|_| !batch.records.is_empty()) {
            let (data, mut records) = (std::mem::take(&mut batch.data), std::mem::take(&mut batch.records));
            // Local subscribers saw what was put back when it came.
            records.truncate(batch.requeued_from);
            batch.data.reserve(data.len().min(SPARE));
            let committed = Arc::new(CommittedBatch::new(number, self.shared.epoch, data, records));
            guarded("the tap", || tap.committed(committed));
        }
        self.wake(|stream| streams[usize::from(stream.0)]);
        self.recycle(batch);
    }

    fn recycle(&mut self, mut batch: OpenBatch) {
        if batch.data.capacity() <= SPARE {
            batch.data.clear();
            batch.records.clear();
            batch.listeners.clear();
            batch.payload = 0;
            batch.since = None;
            batch.requeued_from = usize::MAX;
            self.spare = batch;
        }
    }

    /// Tells a batch's listeners that it is not committed; after an error of the segment, leaves that segment for good.
    pub(crate) fn fail(&mut self, batch: OpenBatch, failure: Failure) -> CommitError {
        let error = match failure {
            Failure::Refused(reason) => CommitError { reason },
            Failure::Segment(error) => self.leave(&error),
        };
        self.reject(batch, &error);
        error
    }

    fn reject(&mut self, mut batch: OpenBatch, error: &CommitError) {
        for record in &batch.records {
            self.shared.gauges.leave(record.stream, 1, record.entry.cost());
        }
        if !batch.is_empty() {
            self.shared.stats.commits_failed.fetch_add(1, Ordering::Relaxed);
        }
        for listener in batch.listeners.drain(..) {
            guarded("a listener", || listener.failed(batch.number, error));
        }
        self.recycle(batch);
    }
}
