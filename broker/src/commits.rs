//! What became of the batches that one producer's appends went into.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_wal::{Batch, CommitError, CommitListener};
use tokio::sync::Notify;

/// Hears from the log's writer thread and wakes whoever waits. One waiter at a time.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    done: AtomicU64,
    committed: AtomicU64,
    failed: Mutex<Vec<Batch>>,
    /// Woken when a batch has ended, and by whoever else has work for the waiter.
    pub(crate) wake: Notify,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It survives a power cut.
    Committed,
    /// It was not stored and never will be.
    Failed,
}

impl Commits {
    /// How the batch ended; `None` while it has not.
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

    /// The newest batch that is durable: the one that the fan-out will see, which a failed batch never reaches.
    pub(crate) fn latest_committed(&self) -> Batch {
        Batch(self.committed.load(Ordering::Acquire))
    }

    /// Forgets failures up to `batch`, once nobody will ask for them any more.
    pub(crate) fn forget_failures(&self, batch: Batch) {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|failed| *failed > batch);
    }

    /// Waits for the batch to end. For a tracker with one waiter.
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
