//! Committed messages on their way to local subscribers: one thread, one ingest link, log order.
//!
//! The router behind it is a QoS 0 fan-out and nothing more. Order: batches in log order; a message that needed no
//! storage comes after the batch that held the earlier ones of its own connection; a topic's messages keep their order.
//! Bounds: [`QUEUE`] hand-offs wait, [`MAX_BATCHES`] of them batches, then they pass local subscribers by, counted (a
//! batch's records are in the log all the same); distinct topics ever shown to the router stay within
//! `limits.max_topics`, filters within [`MAX_FILTERS`], because the router never forgets one.

mod envelope;
mod router;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay_topic::TopicFilter;
use forebay_wal::{Batch, CommittedBatch, Record, StreamId, Tap};
use tokio::sync::oneshot;

use crate::stats::{Stats, add};

pub(crate) use envelope::Message;
pub(crate) use router::{Arrival, RouterGone};

/// Hand-offs that may wait for the fan-out's thread.
const QUEUE: usize = 8192;
/// How many of them may be batches of the log.
const MAX_BATCHES: usize = 128;
/// Bytes that messages in no batch may hold while they wait.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// A router that is silent for this long is dead.
const SILENCE: Duration = Duration::from_secs(10);
/// How often the thread looks whether a message waits for a batch that passed it by.
const TICK: Duration = Duration::from_millis(100);
/// Messages pushed to the router at once.
const PUSH: usize = 512;
/// Distinct filters ever shown to the router, which keeps some 7 KB for each; a new one beyond is refused.
const MAX_FILTERS: usize = 10_000;

/// The handle that connections use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fanout {
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
}

enum Command {
    Batch(Arc<CommittedBatch>),
    Message { after: Batch, message: Message },
    Barrier { after: Batch, done: oneshot::Sender<()> },
    Stop,
}

struct Shared {
    router: router::Router,
    filters: Mutex<Filters>,
    /// Subscriptions now; zero lets the thread skip a batch unread.
    subscriptions: AtomicUsize,
    /// The newest batch that passed the fan-out by because the queue was full.
    passed_by: AtomicU64,
    /// Batches handed over and not looked at.
    batches: AtomicUsize,
    /// Bytes of messages handed over and not at the router.
    message_bytes: AtomicUsize,
    dead: AtomicBool,
    stats: Arc<Stats>,
    free_ids: Mutex<Vec<usize>>,
}

#[derive(Default)]
struct Filters {
    count: HashMap<TopicFilter, usize>,
    /// Changes with every filter that comes or goes: what is remembered of topics is then out of date.
    version: u64,
    /// All that the router was ever shown.
    shown: HashSet<TopicFilter>,
}

/// One session's subscriptions at the router.
pub(crate) struct Subscriber {
    link: Option<router::Link>,
    id: usize,
    shared: Arc<Shared>,
    filters: HashMap<u32, TopicFilter>,
}

/// The log's end of the hand-off.
struct LogTap(Fanout);

/// Starts the router and the fan-out's thread. `max_subscribers` bounds the sessions that may subscribe at once.
///
/// # Errors
/// The router did not start.
pub(crate) fn start(
    max_subscribers: usize,
    max_topics: usize,
    stats: Arc<Stats>,
) -> Result<(Fanout, std::thread::JoinHandle<()>), RouterGone> {
    let router = router::Router::start(max_subscribers + 1);
    let ingest = router.ingest()?;
    let (commands, queue) = sync_channel(QUEUE);
    let shared = Arc::new(Shared {
        router,
        filters: Mutex::default(),
        subscriptions: AtomicUsize::new(0),
        passed_by: AtomicU64::new(0),
        batches: AtomicUsize::new(0),
        message_bytes: AtomicUsize::new(0),
        dead: AtomicBool::new(false),
        stats,
        free_ids: Mutex::new((0..max_subscribers).rev().collect()),
    });
    let worker = Worker {
        ingest,
        shared: Arc::clone(&shared),
        parked: VecDeque::new(),
        push: Vec::new(),
        processed: Batch(0),
        shown: HashMap::new(),
        max_topics,
    };
    let thread = std::thread::Builder::new()
        .name("fanout".to_owned())
        .spawn(move || worker.run(&queue))
        .map_err(|_| RouterGone)?;
    Ok((Fanout { commands, shared }, thread))
}

impl Fanout {
    /// What the log calls after each commit.
    pub(crate) fn tap(&self) -> Box<dyn Tap> {
        Box::new(LogTap(self.clone()))
    }

    /// Hands over a message that is not in the log; it follows batch `after`. Lost, counted, when the queue is full.
    pub(crate) fn publish(&self, after: Batch, message: Message) {
        if self.shared.subscriptions.load(Ordering::Acquire) == 0 {
            return;
        }
        let bytes = size(&message);
        let waiting = self.shared.message_bytes.fetch_add(bytes, Ordering::AcqRel);
        if waiting > MAX_MESSAGE_BYTES || self.commands.try_send(Command::Message { after, message }).is_err() {
            self.shared.message_bytes.fetch_sub(bytes, Ordering::AcqRel);
            add(&self.shared.stats.fanout_dropped, 1);
        }
    }

    /// Whether anybody subscribes: if not, a message need not be kept for [`Fanout::publish`].
    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.subscriptions.load(Ordering::Acquire) > 0
    }

    /// Waits until batch `after`, and all that was handed over before, is at the router. The log tells its producers of a
    /// commit before it hands the batch over, so the batch may still be on its way.
    pub(crate) async fn barrier(&self, after: Batch) {
        let (done, wait) = oneshot::channel();
        let commands = self.commands.clone();
        let sent = tokio::task::spawn_blocking(move || commands.send(Command::Barrier { after, done }).is_ok()).await;
        if matches!(sent, Ok(true)) {
            // A thread that ended drops the sender: there is nothing left to wait for.
            wait.await.ok();
        }
    }

    /// Whether the filter may be shown to the router; if so it counts from now on.
    pub(crate) fn admits(&self, filter: &TopicFilter) -> bool {
        let mut filters = self.shared.filters.lock().unwrap_or_else(PoisonError::into_inner);
        filters.shown.contains(filter) || filters.shown.len() < MAX_FILTERS && filters.shown.insert(filter.clone())
    }

    /// A link for one session; `None` when as many sessions as there are links subscribe already.
    pub(crate) async fn subscriber(&self) -> Result<Option<Subscriber>, RouterGone> {
        let Some(id) = self.shared.free_ids.lock().unwrap_or_else(PoisonError::into_inner).pop() else {
            return Ok(None);
        };
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            let link = shared.router.link(id)?;
            Ok(Some(Subscriber {
                link: Some(link),
                id,
                shared,
                filters: HashMap::new(),
            }))
        })
        .await
        .map_err(|_| RouterGone)?
    }

    /// Whether the router has stopped answering; the process should end loudly.
    pub(crate) fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::Acquire)
    }

    /// Ends the thread after what was handed over.
    pub(crate) fn stop(&self) {
        // A thread that has ended already needs no word.
        self.commands.send(Command::Stop).ok();
    }
}

impl Tap for LogTap {
    fn committed(&mut self, batch: Arc<CommittedBatch>) {
        let shared = &self.0.shared;
        let (number, records) = (batch.number(), batch.len());
        let is_wanted = self.0.is_wanted();
        let is_taken = is_wanted && shared.batches.load(Ordering::Acquire) < MAX_BATCHES && {
            shared.batches.fetch_add(1, Ordering::AcqRel);
            let sent = self.0.commands.try_send(Command::Batch(batch)).is_ok();
            if !sent {
                shared.batches.fetch_sub(1, Ordering::AcqRel);
            }
            sent
        };
        if !is_taken {
            shared.passed_by.store(number.0, Ordering::Release);
        }
        if is_wanted && !is_taken {
            add(&shared.stats.fanout_dropped, records as u64);
        }
    }
}

impl Subscriber {
    /// Subscribes `filter` under a number of the caller's, and waits for the router; what arrives meanwhile goes to `early`.
    pub(crate) async fn subscribe(&mut self, filter: &TopicFilter, number: u32, early: &mut Vec<(u32, Message)>) -> Result<(), RouterGone> {
        let path = filter.as_str().to_owned();
        self.on_link(move |link| link.subscribe(&path, number)).await?;
        self.wait_done(early).await?;
        if self.filters.insert(number, filter.clone()).is_none() {
            self.shared.subscriptions.fetch_add(1, Ordering::AcqRel);
            let mut filters = self.shared.filters.lock().unwrap_or_else(PoisonError::into_inner);
            *filters.count.entry(filter.clone()).or_insert(0) += 1;
            filters.version += 1;
        }
        Ok(())
    }

    /// Ends the subscription with this number and waits for the router.
    pub(crate) async fn unsubscribe(&mut self, number: u32, early: &mut Vec<(u32, Message)>) -> Result<(), RouterGone> {
        let Some(filter) = self.filters.remove(&number) else {
            return Ok(());
        };
        let path = filter.as_str().to_owned();
        self.shared.forget(&filter);
        self.on_link(move |link| link.unsubscribe(&path)).await?;
        self.wait_done(early).await
    }

    /// The next arrival. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Arrival, RouterGone> {
        match &mut self.link {
            Some(link) => link.next().await,
            None => Err(RouterGone),
        }
    }

    async fn wait_done(&mut self, early: &mut Vec<(u32, Message)>) -> Result<(), RouterGone> {
        loop {
            match tokio::time::timeout(SILENCE, self.next()).await.map_err(|_| RouterGone)?? {
                Arrival::Done => return Ok(()),
                Arrival::Message(number, message) => early.push((number, message)),
            }
        }
    }

    async fn on_link(&mut self, act: impl FnOnce(&mut router::Link) -> Result<(), RouterGone> + Send + 'static) -> Result<(), RouterGone> {
        let mut link = self.link.take().ok_or(RouterGone)?;
        let (link, result) = tokio::task::spawn_blocking(move || {
            let result = act(&mut link);
            (link, result)
        })
        .await
        .map_err(|_| RouterGone)?;
        self.link = Some(link);
        result
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        for filter in self.filters.values() {
            self.shared.forget(filter);
        }
        if let Some(link) = self.link.take() {
            link.close();
        }
        self.shared.free_ids.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
    }
}

impl Shared {
    fn forget(&self, filter: &TopicFilter) {
        self.subscriptions.fetch_sub(1, Ordering::AcqRel);
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = filters.count.get_mut(filter) {
            *count -= 1;
            if *count == 0 {
                // The router keeps its log of the filter, so a message already on its way still has a place to go.
                filters.count.remove(filter);
            }
        }
        filters.version += 1;
    }
}

/// What follows a batch that has not come yet.
enum Waiting {
    Message(Message),
    Barrier(oneshot::Sender<()>),
}

/// The thread's state.
struct Worker {
    ingest: router::Ingest,
    shared: Arc<Shared>,
    parked: VecDeque<(Batch, Waiting)>,
    /// What goes to the router next: as much at once as has gathered, because each push waits for its answer.
    push: Vec<Message>,
    processed: Batch,
    /// Every topic ever shown to the router, and whether it matched a filter at a version of the filters.
    shown: HashMap<Bytes, (u64, bool)>,
    max_topics: usize,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Command>) {
        loop {
            let result = match queue.recv_timeout(TICK) {
                Ok(command) => self.obey_all(command, queue),
                Err(RecvTimeoutError::Timeout) => self.unpark().and_then(|()| self.flush()).map(|()| true),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if matches!(result, Ok(false)) {
                return;
            }
            if result.is_err() {
                tracing::error!("the local fan-out's router does not answer any more; the gateway must restart");
                self.shared.dead.store(true, Ordering::Release);
                return;
            }
        }
    }

    /// Does this and what has gathered behind it; false = the thread is to end.
    fn obey_all(&mut self, first: Command, queue: &Receiver<Command>) -> Result<bool, RouterGone> {
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Batch(batch) => {
                    self.shared.batches.fetch_sub(1, Ordering::AcqRel);
                    self.batch(&batch)?;
                }
                Command::Message { after, message } => {
                    self.shared.message_bytes.fetch_sub(size(&message), Ordering::AcqRel);
                    self.message(after, message)?;
                }
                Command::Barrier { after, done } => {
                    self.parked.push_back((after, Waiting::Barrier(done)));
                    self.unpark()?;
                }
                Command::Stop => {
                    self.flush()?;
                    return Ok(false);
                }
            }
            next = queue.try_recv().ok();
        }
        self.flush()?;
        Ok(true)
    }

    fn batch(&mut self, batch: &CommittedBatch) -> Result<(), RouterGone> {
        if self.shared.subscriptions.load(Ordering::Acquire) > 0 {
            for record in batch.records().filter(|record| record.stream < StreamId::LOCAL) {
                self.offer(message_of(record))?;
            }
        }
        self.processed = batch.number();
        self.unpark()
    }

    fn message(&mut self, after: Batch, message: Message) -> Result<(), RouterGone> {
        if after > self.reached() || !self.parked.is_empty() {
            if self.parked.len() >= QUEUE {
                add(&self.shared.stats.fanout_dropped, 1);
            } else {
                self.parked.push_back((after, Waiting::Message(message)));
            }
            return Ok(());
        }
        self.offer(message)
    }

    fn unpark(&mut self) -> Result<(), RouterGone> {
        let reached = self.reached();
        while let Some((_, waiting)) = self.parked.pop_front_if(|(after, _)| *after <= reached) {
            match waiting {
                Waiting::Message(message) => self.offer(message)?,
                Waiting::Barrier(done) => {
                    self.flush()?;
                    // The asker may have gone.
                    done.send(()).ok();
                }
            }
        }
        Ok(())
    }

    fn reached(&self) -> Batch {
        self.processed.max(Batch(self.shared.passed_by.load(Ordering::Acquire)))
    }

    /// Takes the message into the next push if some filter matches its topic: the router would end the ingest link over
    /// a topic that none does.
    fn offer(&mut self, message: Message) -> Result<(), RouterGone> {
        if !self.is_matched(&message.topic) {
            return Ok(());
        }
        self.push.push(message);
        if self.push.len() >= PUSH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RouterGone> {
        if !self.push.is_empty() {
            self.ingest.push(&self.push)?;
            self.push.clear();
        }
        Ok(())
    }

    fn is_matched(&mut self, topic: &Bytes) -> bool {
        let shared = Arc::clone(&self.shared);
        let filters = shared.filters.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(text) = std::str::from_utf8(topic) else { return false };
        let matches = || filters.count.keys().any(|filter| filter.matches(text));
        if let Some((version, matched)) = self.shown.get_mut(topic) {
            if *version != filters.version {
                (*version, *matched) = (filters.version, matches());
            }
            return *matched;
        }
        if !matches() {
            return false;
        }
        if self.shown.len() >= self.max_topics {
            add(&shared.stats.fanout_topics_refused, 1);
            return false;
        }
        // A copy, because the original would keep its whole batch in memory.
        self.shown.insert(Bytes::copy_from_slice(topic), (filters.version, true));
        true
    }
}

fn size(message: &Message) -> usize {
    message.topic.len() + message.publisher.len() + message.properties.len() + message.payload.len()
}

fn message_of(record: Record) -> Message {
    Message {
        topic: record.topic.into_bytes().into(),
        publisher: record.identity.into_bytes().into(),
        qos: record.qos,
        retain: record.retain,
        expiry: record.expiry,
        properties: record.properties,
        payload: record.payload,
    }
}
