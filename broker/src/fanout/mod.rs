//! Committed messages on their way to local subscribers, in log order.
//!
//! ```text
//! log ──▶ [inlet, with a copy of the subscriptions] ──▶ rumqttd ──▶ [outlet] ──▶ outboxes
//! ```
//!
//! The inlet's thread takes committed batches, and messages without a record, looks once for the subscribers of each, and passes
//! what has some to the router. The outlet's thread delivers what comes out, one copy to each connection; messages for a slow
//! subscriber are dropped. A connection that subscribes waits for neither thread's work, only for messages before it, and for
//! those at most [`MAX_BARRIER`]. Order: batches in log order; a message without a record comes after the batch with the earlier
//! ones of its own connection; a topic's messages keep their order. Bounds: [`QUEUE`] hand-offs wait,
//! [`MAX_BATCHES`] of them batches; beyond it they skip local subscribers and are counted (a batch's records are in the log
//! all the same). Two pushes of [`PUSH`] messages or [`PUSH_BYTES`] are in the router. Filters: see the table.

mod envelope;
mod inlet;
mod matches;
mod origins;
mod outlet;
mod router;
mod subscriptions;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_topic::TopicFilter;
use forebay_wal::{Batch, CommittedBatch, Offset, StreamId, Tap};
use tokio::sync::oneshot;

use crate::observe::{Stats, add};
use crate::session::SubscriptionOptions;
use subscriptions::Subscriptions;

pub(crate) use envelope::Message;
pub(crate) use matches::Recipient;
pub(crate) use origins::Origin;
pub(crate) use router::RouterGone;
pub(crate) use table::{NodeId, TooManyFilters};

/// Hand-offs that may wait for the inlet's thread.
const QUEUE: usize = 8192;
/// How many of them may be batches of the log.
const MAX_BATCHES: usize = 128;
/// Bytes that messages in no batch may hold while they wait.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// A router that does not respond for this long at the start is dead. Later only a router counts as dead that returns nothing while
/// the outlet does nothing but listen: see [`outlet::Progress`].
const SILENCE: Duration = Duration::from_secs(10);
/// The longest that a SUBSCRIBE or UNSUBSCRIBE waits for messages before it. Peers decide how much work they are.
const MAX_BARRIER: Duration = Duration::from_secs(2);
/// How often a barrier tries to enter a full queue.
const RETRY: Duration = Duration::from_millis(10);
/// How often a thread checks for changes that do not wake it.
const TICK: Duration = Duration::from_millis(100);
/// Messages pushed to the router at once.
const PUSH: usize = 512;
/// Their bytes, at which a push ends.
const PUSH_BYTES: usize = 256 << 10;
/// Their subscribers, at which a push ends.
const PUSH_RECIPIENTS: usize = 16 << 10;

/// The handle that connections use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fanout {
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
}

/// Its two threads.
pub(crate) struct Threads {
    inlet: JoinHandle<()>,
    outlet: JoinHandle<()>,
}

enum Command {
    Batch(Arc<CommittedBatch>),
    Message { after: Batch, message: Message },
    Barrier { after: Batch, done: oneshot::Sender<()> },
    Stop,
}

struct Shared {
    table: Subscriptions,
    origins: origins::Origins,
    /// Subscriptions now; at zero the inlet skips a batch unread.
    subscriptions: AtomicUsize,
    /// The newest batch that skipped the fan-out because the queue was full.
    skipped: AtomicU64,
    /// Batches in the queue.
    batches: AtomicUsize,
    /// Bytes of messages in the queue.
    message_bytes: AtomicUsize,
    progress: outlet::Progress,
    /// The inlet has ended: the outlet gets nothing more.
    is_stopping: AtomicBool,
    dead: AtomicBool,
    stats: Arc<Stats>,
}

/// The threads' names.
const INLET: &str = "fanout-inlet";
const OUTLET: &str = "fanout-outlet";

/// The log's end of the hand-off.
struct LogTap(Fanout);

/// Starts the router and the threads before and behind it.
///
/// # Errors
/// The router did not start.
pub(crate) fn start(stats: Arc<Stats>) -> Result<(Fanout, Threads), RouterGone> {
    let (entrance, exit) = router::start()?;
    let (commands, queue) = sync_channel(QUEUE);
    let shared = Arc::new(Shared {
        table: Subscriptions::default(),
        origins: origins::Origins::default(),
        subscriptions: AtomicUsize::new(0),
        skipped: AtomicU64::new(0),
        batches: AtomicUsize::new(0),
        message_bytes: AtomicUsize::new(0),
        progress: outlet::Progress::default(),
        is_stopping: AtomicBool::new(false),
        dead: AtomicBool::new(false),
        stats,
    });
    let inlet = inlet::Inlet::new(entrance, Arc::clone(&shared));
    let outlet = outlet::Outlet::new(exit, Arc::clone(&shared));
    let spawn =
        |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|_| RouterGone);
    let threads = Threads {
        inlet: spawn(INLET, Box::new(move || inlet.run(&queue)))?,
        outlet: spawn(OUTLET, Box::new(move || outlet.run()))?,
    };
    Ok((Fanout { commands, shared }, threads))
}

impl Fanout {
    /// What the log calls after each commit.
    pub(crate) fn tap(&self) -> Box<dyn Tap> {
        Box::new(LogTap(self.clone()))
    }

    /// Queues a message that is not in the log; it follows batch `after`. Dropped and counted when the queue is full.
    pub(crate) fn publish(&self, after: Batch, message: Message) {
        if !self.is_wanted() {
            return;
        }
        let bytes = message.size();
        let waiting = self.shared.message_bytes.fetch_add(bytes, Ordering::AcqRel);
        if waiting > MAX_MESSAGE_BYTES || self.commands.try_send(Command::Message { after, message }).is_err() {
            self.shared.message_bytes.fetch_sub(bytes, Ordering::AcqRel);
            add(&self.shared.stats.fanout_dropped, 1);
        }
    }

    /// The number of a session, by which its own messages are known.
    pub(crate) fn origin(&self, identity: &str, client_id: &str) -> Origin {
        self.shared.origins.of(identity, client_id)
    }

    /// Appends a record of a session that has a subscription with No Local; `place` tells where it is.
    pub(crate) fn append_as<T>(
        &self,
        origin: Origin,
        append: impl FnOnce() -> T,
        place: impl FnOnce(&T) -> Option<(StreamId, Offset, Batch)>,
    ) -> T {
        self.shared.origins.note(origin, append, place)
    }

    /// Whether there are subscriptions: if not, a message need not be kept for [`Fanout::publish`].
    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.is_wanted()
    }

    /// Waits until batch `after`, and all that was handed over before, has been given to its subscribers, or for [`MAX_BARRIER`]. The
    /// log tells its producers of a commit before it hands the batch over, so the batch may still be on its way.
    pub(crate) async fn barrier(&self, after: Batch) {
        self.barrier_within(after, MAX_BARRIER).await;
    }

    async fn barrier_within(&self, after: Batch, limit: Duration) {
        let (done, wait) = oneshot::channel();
        let mut command = Command::Barrier { after, done };
        let passed = async {
            while let Err(TrySendError::Full(back)) = self.commands.try_send(command) {
                command = back;
                tokio::time::sleep(RETRY).await;
            }
            // A thread that ended drops the sender: there is nothing left to wait for.
            wait.await.ok();
        };
        // Late: what is subscribed still begins after batch `after`.
        tokio::time::timeout(limit, passed).await.ok();
    }

    /// Subscribes to what comes after batch `after`, or changes the options of a subscription that exists: then there is no new place.
    ///
    /// # Errors
    /// There are too many filters.
    pub(crate) fn subscribe(
        &self,
        filter: &TopicFilter,
        recipient: &Arc<dyn Recipient>,
        options: SubscriptionOptions,
        after: Batch,
    ) -> Result<Option<NodeId>, TooManyFilters> {
        let place = self.shared.table.insert(filter, recipient, options, after)?;
        if place.is_some() {
            self.shared.subscriptions.fetch_add(1, Ordering::AcqRel);
        }
        Ok(place)
    }

    /// Whether there is a subscription whose filter has this first level.
    pub(crate) fn has_subscription_below(&self, first_level: &str) -> bool {
        self.shared.table.has_first_level(first_level)
    }

    /// The subscriptions now; a shared one counts once.
    pub(crate) fn subscriptions(&self) -> usize {
        self.shared.subscriptions.load(Ordering::Acquire)
    }

    /// The node of this filter, if it has a subscription.
    pub(crate) fn place(&self, filter: &str) -> Option<NodeId> {
        self.shared.table.place(filter)
    }

    /// Ends a subscription; false if there is none.
    pub(crate) fn unsubscribe(&self, place: NodeId, recipient: &Arc<dyn Recipient>) -> bool {
        let existed = self.shared.table.remove(place, recipient);
        if existed {
            self.shared.subscriptions.fetch_sub(1, Ordering::AcqRel);
        }
        existed
    }

    /// Whether the router has stopped answering; the process should end loudly.
    pub(crate) fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::Acquire)
    }

    /// Ends the threads after what was handed over.
    pub(crate) fn stop(&self) {
        // A thread that has ended already needs no command.
        self.commands.send(Command::Stop).ok();
    }
}

impl Threads {
    /// The name of one that has ended; none while both run.
    pub(crate) fn ended(&self) -> Option<&'static str> {
        let threads = [(INLET, &self.inlet), (OUTLET, &self.outlet)];
        threads.into_iter().find(|(_, thread)| thread.is_finished()).map(|(name, _)| name)
    }

    /// Waits for both; false if one panicked.
    pub(crate) fn join(self) -> bool {
        let inlet = self.inlet.join().is_ok();
        self.outlet.join().is_ok() && inlet
    }
}

impl Tap for LogTap {
    fn committed(&mut self, batch: Arc<CommittedBatch>) {
        let shared = &self.0.shared;
        let (number, records) = (batch.number(), batch.len());
        let is_wanted = shared.is_wanted();
        let is_taken = is_wanted && shared.batches.load(Ordering::Acquire) < MAX_BATCHES && {
            shared.batches.fetch_add(1, Ordering::AcqRel);
            let sent = self.0.commands.try_send(Command::Batch(batch)).is_ok();
            if !sent {
                shared.batches.fetch_sub(1, Ordering::AcqRel);
            }
            sent
        };
        if !is_taken {
            shared.skipped.store(number.0, Ordering::Release);
        }
        if is_wanted && !is_taken {
            add(&shared.stats.fanout_dropped, records as u64);
        }
    }
}

impl Shared {
    fn is_wanted(&self) -> bool {
        self.subscriptions.load(Ordering::Acquire) > 0
    }

    fn die(&self) {
        if !self.dead.swap(true, Ordering::AcqRel) {
            tracing::error!("the local fan-out's router does not respond; the gateway must restart");
        }
    }
}
