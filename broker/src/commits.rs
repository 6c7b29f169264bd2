//! The outcome of the batches that a producer and its clones appended to.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_wal::{Batch, CommitError, CommitListener};
use tokio::sync::Notify;

/// Is told by the log's writer thread, and wakes the task that waits. One waiter at a time.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    done: AtomicU64,
    committed: AtomicU64,
    failed: Mutex<Vec<Batch>>,
    /// Woken when a batch has ended, and when whoever waits has other work.
    pub(crate) wake: Notify,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is on disk and survives a power cut.
    Committed,
    /// It is not on disk and never will be.
    Failed,
}

impl Commits {
    /// How the batch ended; `None` if it has not.
    pub(crate) fn outcome(&self, batch: Batch) -> Option<Outcome> {
        if batch.0 > self.done.load(Ordering::Acquire) {
            return None;
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).contains(&batch);
        Some(if failed { Outcome::Failed } else { Outcome::Committed })
    }

    /// The newest batch that has ended.
    pub(crate) fn latest(&self) -> Batch {
        Batch(self.done.load(Ordering::Acquire))
    }

    /// The newest batch that is committed. The fan-out gets it; it never gets a failed one.
    pub(crate) fn latest_committed(&self) -> Batch {
        Batch(self.committed.load(Ordering::Acquire))
    }

    /// Whether a failure is known.
    pub(crate) fn has_failures(&self) -> bool {
        !self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Forgets failures up to `batch`. For when no answer depends on them any more.
    pub(crate) fn forget_failures(&self, batch: Batch) {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|failed| *failed > batch);
    }

    /// Waits for the batch to end.
    pub(crate) async fn wait(&self, batch: Batch) -> Outcome {
        loop {
            let woken = self.wake.notified();
            if let Some(outcome) = self.outcome(batch) {
                return outcome;
            }
            woken.await;
        }
    }
}

impl CommitListener for Commits {
    fn committed(&self, batch: Batch) {
        self.committed.store(batch.0, Ordering::Release);
        self.done.store(batch.0, Ordering::Release);
        self.wake.notify_one();
    }

    fn failed(&self, batch: Batch, _error: &CommitError) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
        self.done.store(batch.0, Ordering::Release);
        self.wake.notify_one();
    }
}
