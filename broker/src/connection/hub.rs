//! What the connections of one thread share: the log and the fan-out wake it once for all of them, and it writes to each what may
//! leave.
//!
//! 1. The log says that a batch has ended, or the fan-out that connections have deliveries.
//! 2. [`Hub::run`] goes through the connections that wait for that batch, and those with deliveries.
//! 3. Each lets its answers go, from the front of its outbox, and writes what its socket takes at once ([`Outbox::flush`]). What it
//!    does not take, its own writer sends.
//!
//! A connection with an answer that waits for a batch stands in the list, at the oldest such batch or an older one, until its answer
//! has left. So failures of batches older than all in the list are asked for by nobody any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use forebay_wal::{Batch, Log, Producer};

use super::outbox::Outbox;
use super::turn::{give_way, in_turns};
use crate::commits::Commits;
use crate::context::Context;
use crate::retained::{Retained, RetainedBeforeAcks};

/// One for each thread that has connections.
pub(crate) struct Hub {
    pub(super) commits: Arc<Commits>,
    /// Its clones append for the connections.
    producer: Producer,
    due: Mutex<Due>,
}

#[derive(Default)]
struct Due {
    /// Who waits for which batch.
    waiting: Vec<(Batch, Arc<Outbox>)>,
    /// Who has deliveries.
    told: Vec<Arc<Outbox>>,
    /// Nobody goes through them any more.
    is_over: bool,
}

/// Lets go of the connections when their thread ends: they know the hub, and would keep it and each other.
struct Over<'h>(&'h Hub);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let last = Due {
            is_over: true,
            ..Due::default()
        };
        let due = std::mem::replace(&mut *self.0.lock(), last);
        drop(due);
    }
}

impl Hub {
    pub(crate) fn new(log: &Log, retained: &Arc<Retained>) -> Arc<Self> {
        let commits = Arc::<Commits>::default();
        let producer = log.producer(Arc::new(RetainedBeforeAcks {
            retained: Arc::clone(retained),
            commits: Arc::clone(&commits),
        }));
        Arc::new(Self {
            commits,
            producer,
            due: Mutex::default(),
        })
    }

    pub(super) fn producer(&self) -> Producer {
        self.producer.clone()
    }

    /// This connection waits for that batch.
    pub(super) fn wait_for(&self, batch: Batch, outbox: &Arc<Outbox>) {
        let mut due = self.lock();
        if due.is_over {
            return;
        }
        due.waiting.push((batch, Arc::clone(outbox)));
        drop(due);
        if self.commits.outcome(batch).is_some() {
            self.commits.wake.notify_one();
        }
    }

    /// This connection has deliveries.
    pub(super) fn tell(&self, outbox: &Arc<Outbox>) {
        let mut due = self.lock();
        if due.is_over {
            return;
        }
        due.told.push(Arc::clone(outbox));
        let is_first = due.told.len() == 1;
        drop(due);
        if is_first {
            self.commits.wake.notify_one();
        }
    }

    /// Answers for the connections. Never ends.
    pub(crate) async fn run(self: Arc<Self>, context: Arc<Context>) {
        let _over = Over(&self);
        in_turns(Box::pin(self.answer(&context))).await;
    }

    async fn answer(&self, context: &Context) {
        let mut due = Vec::new();
        let mut told = Vec::new();
        let mut scratch = BytesMut::new();
        loop {
            self.commits.wake.notified().await;
            let latest = self.commits.latest();
            {
                let mut all = self.lock();
                due.extend(all.waiting.extract_if(.., |(batch, _)| *batch <= latest));
                told.append(&mut all.told);
            }
            for (_, outbox) in due.drain(..) {
                if let Some(batch) = flush(&outbox, context, &mut scratch, Outbox::flush_commits) {
                    self.lock().waiting.push((batch, outbox));
                }
                give_way().await;
            }
            for outbox in told.drain(..) {
                flush(&outbox, context, &mut scratch, Outbox::flush_deliveries);
                give_way().await;
            }
            self.forget_failures(latest);
        }
    }

    /// Forgets the failures of batches that no connection waits for.
    fn forget_failures(&self, latest: Batch) {
        if !self.commits.has_failures() {
            return;
        }
        let oldest = self.lock().waiting.iter().map(|(batch, _)| *batch).min();
        let until = oldest.map_or(latest, |oldest| Batch(oldest.0.saturating_sub(1)).min(latest));
        self.commits.forget_failures(until);
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's turn. A panic in it, which is a fault of ours, ends that connection and no other.
fn flush(
    outbox: &Arc<Outbox>,
    context: &Context,
    scratch: &mut BytesMut,
    flush: impl FnOnce(&Arc<Outbox>, &Context, &mut BytesMut) -> Option<Batch>,
) -> Option<Batch> {
    catch_unwind(AssertUnwindSafe(|| flush(outbox, context, scratch))).unwrap_or_else(|_| {
        tracing::error!("the answers of a connection could not be sent, and it is closed; this is a fault of ours, please report it");
        outbox.give_up();
        None
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_wal::testing::{ManualClock, Unobserved};
    use forebay_wal::{CommitError, CommitListener, Options};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::budget::{Budget, Owner};
    use crate::codec::Version;
    use crate::commits::Outcome;
    use crate::connection::outbox::{Answer, Pending, Ready};
    use crate::limits::Limits;

    #[tokio::test]
    async fn a_failure_is_kept_as_long_as_a_connection_waits_for_its_batch_and_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            directory: directory.path().to_owned(),
            max_disk: 1 << 28,
            keep_free: 0,
            commit_wait: Duration::ZERO,
            max_devices: 10,
            streams: Vec::new(),
        };
        let log = Log::open(options, Arc::new(ManualClock::trusted()), Arc::new(Unobserved), None)
            .unwrap()
            .log;
        let commits = Arc::<Commits>::default();
        let hub = Arc::new(Hub {
            producer: log.producer(commits.clone()),
            commits,
            due: Mutex::default(),
        });
        let budget = Budget::new(&Limits::default());
        let (output, uncommitted) = (
            budget.output_bytes.open(Owner::FixedWord),
            budget.uncommitted.line(Owner::FixedWord),
        );
        let outbox = Arc::new(Outbox::new(
            Version::V5,
            CancellationToken::new(),
            output,
            uncommitted,
            Arc::clone(&hub),
        ));
        outbox.push(Pending {
            ready: Ready::After(Batch(5)),
            answer: Answer::Nothing,
            publish: None,
            fanout: None,
            since: Instant::now(),
            budget: 0,
            trace: None,
        });
        let error = CommitError { reason: "a test".into() };
        for batch in [3, 5, 6] {
            hub.commits.failed(Batch(batch), &error);
        }
        hub.commits.committed(Batch(7));
        hub.forget_failures(Batch(7));
        assert_eq!(hub.commits.outcome(Batch(5)), Some(Outcome::Failed));
        assert_eq!(hub.commits.outcome(Batch(3)), Some(Outcome::Committed), "nobody asks for it");
        hub.lock().waiting.clear();
        hub.forget_failures(Batch(5));
        assert_eq!(hub.commits.outcome(Batch(6)), Some(Outcome::Failed), "it is not looked for yet");
        hub.forget_failures(Batch(7));
        assert!(!hub.commits.has_failures());
    }
}
