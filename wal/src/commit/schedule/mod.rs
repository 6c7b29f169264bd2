//! When the writer does what. In this order: the end, jobs that a person asks for, a look around each second, batches, what became of
//! records, compaction.

pub(crate) mod idle_commit;
mod rest_wait;

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::commit::announce::Announcer;
use crate::commit::schedule::idle_commit::IdleCommit;
use crate::intake::batch::{Intake, OpenBatch};
use crate::intake::job::Job;
use crate::shared::Shared;
use crate::sync::lock;

/// How long settled records may wait for a commit of their own, besides `commit_wait`: where records come, their commit
/// takes the settled ones along, and each commit is wear.
const PROGRESS_WAIT: Duration = Duration::from_millis(200);
/// How long the compaction of a segment rests between its parts, so that acks do not wait for it.
const COMPACTION_WAIT: Duration = Duration::from_millis(50);
/// Bytes at which a commit waits for no more.
const ENOUGH: usize = 1 << 20;
/// How often the writer looks around when nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// What there is to do.
pub(crate) enum Work {
    Commit(OpenBatch),
    Progress,
    Compact,
    Job(Job),
    Tick,
    Close(OpenBatch),
}

/// How the log is at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    /// When a new segment is tried after a failure; `None` if the log can write.
    pub(crate) retry_at: Option<Instant>,
    /// There is no room for records.
    pub(crate) is_full: bool,
    /// A compaction goes on.
    pub(crate) is_compacting: bool,
}

/// When the next of each kind of work is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    next_tick: Instant,
    next_compaction: Instant,
    idle_commit: IdleCommit,
}

impl Schedule {
    pub(crate) fn new() -> Self {
        Self {
            next_tick: Instant::now(),
            next_compaction: Instant::now(),
            idle_commit: IdleCommit::new(),
        }
    }

    /// Records were committed.
    pub(crate) fn committed(&mut self) {
        self.idle_commit.committed(Instant::now());
    }

    /// A part was compacted; the next one waits.
    pub(crate) fn compacted(&mut self) {
        self.next_compaction = Instant::now() + COMPACTION_WAIT;
    }

    /// Waits until there is something to do, and takes it.
    pub(crate) fn next(&mut self, shared: &Shared, log: State, announcer: &mut Announcer) -> Work {
        let wait = shared.options.commit_wait;
        let is_broken = log.retry_at.is_some();
        let mut intake = lock(&shared.intake);
        loop {
            let now = Instant::now();
            if intake.closing {
                return Work::Close(announcer.swap(&mut intake));
            }
            if !is_broken && let Some(job) = intake.jobs.pop_front() {
                return Work::Job(job);
            }
            let tick_at = log.retry_at.unwrap_or(self.next_tick);
            if tick_at <= now {
                self.next_tick = now + if log.is_full { PROGRESS_WAIT } else { TICK };
                return Work::Tick;
            }
            let commit_at = intake.open.since.filter(|_| !intake.open.is_empty()).map(|since| since + wait);
            let is_due = commit_at.is_some_and(|at| at <= now);
            let is_early = !is_due && intake.open.is_lone() && self.idle_commit.take(now, wait);
            let rest_at = rest_wait::until(now, &intake.open, &shared.busy).filter(|_| is_due);
            if is_early || (is_due && rest_at.is_none()) || intake.open.data.len() >= ENOUGH {
                shared.unmark(&mut intake);
                return Work::Commit(announcer.swap(&mut intake));
            }
            if let Some(rest_at) = rest_at {
                // Nothing else is begun: it would make the acks later, and this commit takes the settled records along.
                intake = ring(shared, intake, rest_at - now);
                continue;
            }
            // A broken log keeps its settlements in memory until there is a segment again.
            let progress_at = intake.dirty.filter(|_| !is_broken).map(|since| since + PROGRESS_WAIT + wait);
            if progress_at.is_some_and(|at| at <= now) {
                shared.unmark(&mut intake);
                return Work::Progress;
            }
            let compact_at = (log.is_compacting && !is_broken).then_some(self.next_compaction);
            if compact_at.is_some_and(|at| at <= now) {
                return Work::Compact;
            }
            let until = [commit_at, progress_at, compact_at]
                .into_iter()
                .flatten()
                .fold(tick_at, Instant::min);
            intake = ring(shared, intake, until - now);
        }
    }
}

/// Waits for the bell, at most so long.
fn ring<'s>(shared: &'s Shared, intake: MutexGuard<'s, Intake>, most: Duration) -> MutexGuard<'s, Intake> {
    let waited = shared.bell.wait_timeout(intake, most);
    waited.unwrap_or_else(PoisonError::into_inner).0
}
