//! The writer thread: the one place from which the log is written.
//!
//! Its parts decide and say what is to be done: [`RoomSearch`] what makes room, [`Compaction`] what is copied, [`Rotation`] whether a
//! new segment is due, [`Requeue`] what a person puts back, [`Draft`] what a commit writes. Only the writer does it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::commit::announce::{Announcer, wake};
use crate::commit::background::Background;
use crate::commit::bounds::Space;
use crate::commit::compaction::{Compaction, Look, Move};
use crate::commit::eviction::{Evictions, evict, evict_over_bounds};
use crate::commit::recount::{count_passed_by, count_unsure};
use crate::commit::requeue::{Portion, Requeue};
use crate::commit::retention;
use crate::commit::room::{NextStep, RoomSearch};
use crate::commit::rotation::{Due, Rotation, burnt_offsets};
use crate::commit::schedule::{Schedule, State, Work};
use crate::commit::write::{Draft, Extra};
use crate::encoding::change::Change;
use crate::encoding::row::{RowKind, encode_row};
use crate::error::CommitError;
use crate::intake::batch::{Intake, OpenBatch, WRITER_STOPPED};
use crate::intake::job::{Job, RequeueError, Requeued, What};
use crate::listener::Tap;
use crate::record::Batch;
use crate::segment::database::SegmentError;
use crate::segment::page_fill::PageFill;
use crate::segment::quarantine::Because;
use crate::shared::Shared;
use crate::sync::lock;

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    announcer: Announcer,
    /// Key of the last row of the catalogue.
    row: u64,
    /// The newest number that any segment had.
    pub(crate) number: u64,
    pub(crate) space: Space,
    pub(crate) rotation: Rotation,
    pub(crate) compaction: Compaction,
    pub(crate) background: Background,
    pub(crate) removing: Background,
    schedule: Schedule,
    page_fill: PageFill,
    evictions: Evictions,
}

/// Why a commit was not made.
enum Failure {
    /// Nothing was written.
    Refused(String),
    /// The segment failed.
    Segment(SegmentError),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, tap: Option<Box<dyn Tap>>, row: u64, number: u64, space: Space) -> Self {
        Self {
            shared,
            announcer: Announcer::new(tap),
            row,
            number,
            space,
            rotation: Rotation::default(),
            compaction: Compaction::default(),
            background: Background::here(),
            removing: Background::here(),
            schedule: Schedule::new(),
            page_fill: PageFill::default(),
            evictions: Evictions::default(),
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

    fn serve(&mut self) -> Result<(), CommitError> {
        loop {
            crate::panic_if_asked("wal");
            let now = State {
                retry_at: self.rotation.retry_at(),
                is_full: self.space.is_full,
                is_compacting: self.compaction.is_under_way(),
            };
            match self.schedule.next(&self.shared, now, &mut self.announcer) {
                Work::Commit(batch) => {
                    self.commit(batch).ok();
                }
                Work::Progress => {
                    self.commit_progress().ok();
                }
                Work::Compact => {
                    self.compact_step().ok();
                    self.schedule.compacted();
                }
                Work::Job(job) => self.do_job(job),
                Work::Tick => self.tick(),
                Work::Close(batch) => return self.finish(batch),
            }
            self.reject_late();
        }
    }

    pub(crate) fn swap(&mut self, intake: &mut Intake) -> OpenBatch {
        self.announcer.swap(intake)
    }

    /// Takes a batch. From when it is swapped out to its acks nothing happens but steps 1 to 3: this is where the time of an ack is
    /// to be looked for.
    ///
    /// 1. Room is made for it, or it is refused ([`Writer::make_room_for`]). Mostly there is room, and nothing is done.
    /// 2. One write and one sync ([`Writer::store`]).
    /// 3. The listeners hear of it, and acks leave; then the tap, then the readers.
    /// 4. What is done with whole files comes last, so that no ack waits for it ([`Writer::tidy`]).
    ///
    /// # Errors
    /// The batch is not durable; its listeners were told the same.
    pub(crate) fn commit(&mut self, batch: OpenBatch) -> Result<(), CommitError> {
        self.commit_with(batch, &Extra::Nothing)
    }

    /// [`Writer::commit`], with something else in the same commit.
    fn commit_with(&mut self, batch: OpenBatch, extra: &Extra<'_>) -> Result<(), CommitError> {
        let done = match self.make_room_for(&batch).and_then(|()| self.store(&batch, extra)) {
            Ok(dropped) => {
                if !batch.records.is_empty() {
                    self.schedule.committed();
                }
                self.announcer.committed(&self.shared, batch);
                self.tidy(&dropped);
                Ok(())
            }
            Err(failure) => Err(self.fail(batch, failure)),
        };
        self.evictions.tell_due(&self.shared);
        done
    }

    /// Before a batch is committed: streams over their own bounds lose their oldest, then the disk gets room for it.
    fn make_room_for(&mut self, batch: &OpenBatch) -> Result<(), Failure> {
        self.refuse_if_broken()?;
        evict_over_bounds(&self.shared, &mut self.evictions);
        if batch.records.is_empty() {
            return Ok(());
        }
        let needed = self.space.needed(&self.shared, batch);
        let has_room = self.make_room(RoomSearch::for_bytes(needed));
        self.refuse_if_broken()?;
        if !has_room {
            self.space.refuse(&self.shared, batch);
            return Err(Failure::Refused(self.shared.why_full()));
        }
        self.space.set_full(&self.shared, false);
        Ok(())
    }

    /// Makes room, one step after the other; whether there is enough then. A step is at most one commit, of what is settled, copied
    /// or evicted and of no new record: so none of them comes back here.
    fn make_room(&mut self, mut search: RoomSearch) -> bool {
        loop {
            let step = search.next(&self.shared, &self.space, &mut self.compaction, self.number);
            let done = match step {
                NextStep::Enough => return true,
                NextStep::Nothing => return false,
                NextStep::Remove => {
                    self.remove_now();
                    Ok(())
                }
                NextStep::DropSpare => {
                    self.shared.segments.drop_spare();
                    Ok(())
                }
                NextStep::DropQuarantined => {
                    self.space.drop_quarantined(&self.shared, Because::Room);
                    Ok(())
                }
                NextStep::Settle => self.commit_progress(),
                NextStep::Compact => self.compact_step(),
                NextStep::Rotate => self.rotate(),
                NextStep::Evict(victims) => {
                    evict(&self.shared, &victims, &mut self.evictions);
                    self.commit_progress()
                }
            };
            if done.is_err() {
                return false;
            }
        }
    }

    /// Commits what became of records; new ones wait.
    ///
    /// # Errors
    /// It is not durable, and is written with the next commit.
    pub(crate) fn commit_progress(&mut self) -> Result<(), CommitError> {
        evict_over_bounds(&self.shared, &mut self.evictions);
        self.commit_no_records(&Extra::Nothing)
    }

    fn commit_no_records(&mut self, extra: &Extra<'_>) -> Result<(), CommitError> {
        let empty = OpenBatch::new(Batch(0));
        let dropped = self.store(&empty, extra).map_err(|failure| self.fail(empty, failure))?;
        self.tidy(&dropped);
        Ok(())
    }

    /// Writes: the one place where the log is committed. Returns the segments that left the catalogue.
    ///
    /// 1. What readers passed by in damaged blocks is counted, and dead letters are copied: both may read a segment.
    /// 2. Blocks and the changes of the catalogue are written with one sync.
    /// 3. The catalogue in memory takes those changes over.
    fn store(&mut self, batch: &OpenBatch, extra: &Extra<'_>) -> Result<Vec<u64>, Failure> {
        self.refuse_if_broken()?;
        // Before what was passed by is noted as passed.
        count_unsure(&self.shared);
        let mut draft = Draft::gather(&self.shared, self.number, batch, extra);
        if !draft.is_empty() {
            let row = encode_row(RowKind::Delta, self.row + 1, &draft.changes);
            let blocks = draft.blocks(batch, &self.page_fill);
            if let Err(error) = self.shared.segments.commit(&blocks, self.row + 1, &row) {
                drop(blocks);
                draft.give_back(&self.shared);
                return Err(Failure::Segment(error));
            }
            self.row += 1;
            self.page_fill.stored(&blocks, &row);
            self.shared.stats.commits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(draft.take_over(&self.shared))
    }

    /// After a commit, and after its acks: readers that waited for the commit go on, the files of segments that left the catalogue go or are
    /// kept as the spare one, those in which nothing waits any more are noted, and a new segment begins if the active one is full.
    fn tidy(&mut self, dropped: &[u64]) {
        let ready = lock(&self.shared.tracker).let_go_on();
        wake(&self.shared, |stream| ready.contains(&stream.0));
        retention::remove(&self.shared, &mut self.space, &mut self.compaction, dropped);
        self.remove_beside();
        self.note_empty();
        if let Err(error) = self.rotate_if_due() {
            self.fail(OpenBatch::new(Batch(0)), Failure::Segment(error));
        }
    }

    /// What is on its way out goes beside the commits.
    fn remove_beside(&mut self) {
        if !self.shared.segments.removal.is_empty() {
            let shared = self.shared.clone();
            self.removing.run(move || shared.segments.removal.work(&*shared.segments.directory));
        }
    }

    /// The same, but whoever asks waits until it is gone.
    fn remove_now(&mut self) {
        let segments = &self.shared.segments;
        segments.removal.hurry(true);
        self.removing.wait();
        segments.removal.work(&*segments.directory);
        segments.removal.hurry(false);
    }

    fn note_empty(&self) {
        if retention::note_empty(&self.shared, &self.compaction, self.number) {
            self.shared.mark_dirty();
        }
    }

    fn refuse_if_broken(&self) -> Result<(), Failure> {
        self.rotation
            .broken()
            .map_or(Ok(()), |reason| Err(Failure::Refused(reason.to_owned())))
    }

    fn rotate_if_due(&mut self) -> Result<(), SegmentError> {
        self.space.active = self.shared.segments.active_allocated();
        match Rotation::due(&self.shared, &self.space) {
            Due::No => {}
            Due::Ahead => {
                let shared = self.shared.clone();
                self.background.run(move || {
                    // A failure is no harm yet: the switch tries again.
                    if let Err(error) = shared.segments.prepare() {
                        tracing::debug!(%error, "the next segment could not be made ahead");
                    }
                });
            }
            Due::Now => match self.shared.segments.prepare() {
                // With no room for another segment this one goes on: what it may still write is what frees the others.
                Err(error) if error.is_full() => {}
                _ => return self.begin_segment(&[]),
            },
        }
        Ok(())
    }

    /// Rotates now; a failure is handled as any error of the segment.
    fn rotate(&mut self) -> Result<(), CommitError> {
        self.begin_segment(&[])
            .map_err(|error| self.fail(OpenBatch::new(Batch(0)), Failure::Segment(error)))
    }

    /// Switches to a new segment that begins with the catalogue as it is after `first`.
    fn begin_segment(&mut self, first: &[Change]) -> Result<(), SegmentError> {
        self.space.leave_active(&self.shared.segments);
        self.number += 1;
        let mut catalogue = lock(&self.shared.catalogue).clone();
        first.iter().for_each(|change| catalogue.apply(change));
        catalogue.apply(&Change::Segment {
            segment: self.number,
            epoch: self.shared.epoch.0,
        });
        self.shared.segments.switch(self.number, self.row + 1, &catalogue.snapshot())?;
        self.row += 2;
        self.page_fill.clear();
        // Only this thread changes it.
        *lock(&self.shared.catalogue) = catalogue;
        self.space.active = self.shared.segments.active_allocated();
        self.shared.stats.rotations.fetch_add(1, Ordering::Relaxed);
        // The segment left behind may have nothing waiting.
        self.note_empty();
        Ok(())
    }

    /// Does the next step of the compaction that goes on.
    ///
    /// # Errors
    /// It is not durable. The compaction is given up, and found again.
    pub(crate) fn compact_step(&mut self) -> Result<(), CommitError> {
        let done = match self.compaction.next(&self.shared) {
            Move::Nothing => Ok(()),
            Move::Copy(part) => self.commit_no_records(&Extra::Part(&part)),
            Move::Charge => self.commit_progress(),
            Move::End(ended) => {
                retention::end_compaction(&self.shared, &mut self.space, &ended);
                wake(&self.shared, |_| true);
                // Nothing waits in it, so this takes it out of the catalogue.
                self.note_empty();
                let done = self.commit_progress();
                self.compaction.merge_on(&self.shared, &self.space, self.number);
                done
            }
        };
        if done.is_err() {
            self.compaction.abandon(&self.shared);
        }
        done
    }

    /// Does what a person asked for, one commit after the other.
    pub(crate) fn do_job(&mut self, job: Job) {
        let result = self.requeue(job.what);
        // Whoever asked may have gone.
        job.answer.send(result).ok();
    }

    fn requeue(&mut self, what: What) -> Result<Requeued, RequeueError> {
        let shared = self.shared.clone();
        let mut requeue = Requeue::new(what);
        while let Some(portion) = requeue.next(&shared) {
            let empty = OpenBatch::new(Batch(0));
            let committed = match portion {
                Portion::PutBack(again) => {
                    let (batch, leaving) = {
                        let mut intake = lock(&shared.intake);
                        let leaving = requeue.append(&shared, &mut intake, again);
                        (self.swap(&mut intake), leaving)
                    };
                    self.commit_with(batch, &Extra::Leaving(&leaving))
                }
                Portion::Drop(leaving) => self.commit_with(empty, &Extra::Leaving(&leaving)),
                Portion::ForgetTime => self.commit_with(empty, &Extra::Forgetting),
            };
            committed.map_err(|error| RequeueError::NotStored { reason: error.reason })?;
        }
        Ok(requeue.done())
    }

    pub(crate) fn tick(&mut self) {
        self.evictions.tell_due(&self.shared);
        if self.rotation.broken().is_some() {
            return self.recover();
        }
        self.look_around();
        count_passed_by(&self.shared, self.number);
        let look = self.compaction.look(&self.shared, &self.space, self.number);
        if look == Look::LeaveActive && self.rotate().is_ok() {
            self.compaction.look(&self.shared, &self.space, self.number);
        }
    }

    /// Brings the figures up to date, makes the ballast again, judges the oldest records.
    fn look_around(&mut self) {
        self.shared.segments.keep_lock();
        self.space.active = self.shared.segments.active_allocated();
        self.space.headroom(&self.shared);
        if self.space.is_full {
            let needed = self.space.needed_again(&self.shared);
            self.make_room(RoomSearch::for_one_segment(needed));
            let has_room = self.space.headroom(&self.shared) >= self.space.needed_again(&self.shared);
            self.space.set_full(&self.shared, !has_room);
        }
        self.space.keep_quarantine(&self.shared);
        self.shared.segments.removal.try_again();
        self.remove_beside();
        self.space.make_ballast(&self.shared);
        self.shared.note_oldest();
    }

    /// Tells a batch's listeners that it is not committed; after an error of the segment, leaves that segment for good.
    fn fail(&mut self, batch: OpenBatch, failure: Failure) -> CommitError {
        let error = match failure {
            Failure::Refused(reason) => CommitError { reason },
            Failure::Segment(error) => self.leave(&error),
        };
        self.announcer.failed(&self.shared, batch, &error);
        error
    }

    /// After an error nothing about the segment is believed any more, so it is never written again.
    fn leave(&mut self, error: &SegmentError) -> CommitError {
        let reason = reason(error);
        tracing::error!(%error, "the log could not write; it refuses records until a new segment works");
        if let Some(segment) = self.shared.segments.active_number() {
            // A full disk says nothing against what was written before.
            if !error.is_full() {
                self.shared.segments.note(segment, self.row);
                self.compaction.distrust(segment);
            }
        }
        lock(&self.shared.intake).unavailable = Some(reason.clone());
        self.space.leave_active(&self.shared.segments);
        self.shared.segments.close_active().ok();
        self.shared.segments.discard_ahead();
        if error.is_full() {
            self.space.drop_ballast(&self.shared);
        }
        self.rotation.failed(reason.clone());
        CommitError { reason }
    }

    /// Begins a new segment from the catalogue of the last successful commit.
    fn recover(&mut self) {
        let first = burnt_offsets(&self.shared);
        let attached = self.shared.segments.attach_again().map_err(SegmentError::Io);
        match attached.and_then(|()| self.begin_segment(&first)) {
            Ok(()) => {
                tracing::info!(segment = self.number, "the log writes again");
                self.rotation.works();
                lock(&self.shared.intake).unavailable = None;
                // What the failed commit was to write of settled records still waits.
                self.shared.mark_dirty();
                self.look_around();
            }
            Err(error) => {
                self.shared.segments.close_active().ok();
                self.shared.segments.discard_ahead();
                let reason = reason(&error);
                tracing::debug!(%error, "no new segment yet");
                lock(&self.shared.intake).unavailable = Some(reason.clone());
                self.rotation.failed(reason);
            }
        }
    }

    /// What came in after a failure would wait for as long as it lasts: says so now.
    pub(crate) fn reject_late(&mut self) {
        let Some(reason) = self.rotation.broken() else { return };
        let error = CommitError { reason: reason.to_owned() };
        let shared = self.shared.clone();
        let late = self.swap(&mut lock(&shared.intake));
        self.announcer.failed(&shared, late, &error);
    }

    /// Commits the last batch and closes the active segment.
    ///
    /// # Errors
    /// The last commit's.
    pub(crate) fn finish(&mut self, batch: OpenBatch) -> Result<(), CommitError> {
        let mut result = self.commit(batch);
        if result.is_ok() {
            result = self.commit_progress();
        }
        self.evictions.tell_all(&self.shared);
        self.background.wait();
        self.remove_now();
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

    fn stop_after_panic(&mut self) -> CommitError {
        tracing::error!("{WRITER_STOPPED}");
        let open = {
            let mut intake = lock(&self.shared.intake);
            intake.unavailable = Some(WRITER_STOPPED.into());
            let number = Batch(intake.open.number.0 + 1);
            std::mem::replace(&mut intake.open, OpenBatch::new(number))
        };
        drop(open);
        self.shared.segments.removal.hurry(true);
        self.removing.wait();
        self.background.wait();
        // What was committed is whole; the directory's lock goes with this thread, so nothing may stay open.
        catch_unwind(AssertUnwindSafe(|| self.shared.segments.close_active().ok())).ok();
        CommitError {
            reason: WRITER_STOPPED.into(),
        }
    }
}

/// Why nothing can be written, in words.
fn reason(error: &SegmentError) -> String {
    if error.is_full() {
        format!("the disk is full: {error}")
    } else {
        error.to_string()
    }
}
