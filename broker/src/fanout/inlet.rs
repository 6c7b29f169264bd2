//! The way into the router: what was committed, and what needs no storage in its turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use forebay_topic::PeerText;
use forebay_wal::{Batch, CommittedBatch, Record, StreamId};
use tokio::sync::oneshot;

use super::envelope::{self, Message};
use super::matches::Matches;
use super::origins::Origin;
use super::router::{Entrance, RouterGone};
use super::subscriptions::Snapshot;
use super::table::MAX_STEPS;
use super::{Command, PUSH, PUSH_BYTES, PUSH_RECIPIENTS, QUEUE, Shared, TICK};
use crate::observe::add;

/// How often a search that was too long is told in the log.
const TELL_EVERY: Duration = Duration::from_secs(3600);

/// The thread's state.
pub(super) struct Inlet {
    entrance: Entrance,
    shared: Arc<Shared>,
    parked: VecDeque<(Batch, Waiting)>,
    subscriptions: Snapshot,
    /// What goes to the router next, and to whom it goes behind it: as much at once as has gathered.
    push: Vec<(Message, Matches)>,
    push_bytes: usize,
    push_recipients: usize,
    processed: Batch,
    /// When it was last said that a search was too long.
    told_cut: Option<Instant>,
    /// The number of the last message pushed, and of the last of the push before.
    pushed: u64,
    pushed_before: u64,
}

/// What waits for a batch that has not come yet.
enum Waiting {
    Message(Message),
    Barrier(oneshot::Sender<()>),
}

impl Inlet {
    pub(super) fn new(entrance: Entrance, shared: Arc<Shared>) -> Self {
        Self {
            entrance,
            shared,
            parked: VecDeque::new(),
            subscriptions: Snapshot::default(),
            push: Vec::new(),
            push_bytes: 0,
            push_recipients: 0,
            processed: Batch(0),
            told_cut: None,
            pushed: 0,
            pushed_before: 0,
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        loop {
            forebay_wal::panic_if_asked(super::INLET);
            let result = match queue.recv_timeout(TICK) {
                Ok(command) => self.run_all(command, queue),
                Err(RecvTimeoutError::Timeout) => self.idle().map(|()| true),
                Err(RecvTimeoutError::Disconnected) => Ok(false),
            };
            match result {
                Ok(true) => {}
                Ok(false) => break,
                Err(RouterGone) => {
                    self.shared.die();
                    break;
                }
            }
        }
        self.shared.is_stopping.store(true, Ordering::Release);
    }

    /// What is not to wait for a command.
    fn idle(&mut self) -> Result<(), RouterGone> {
        self.shared.origins.forget(self.reached());
        self.follow();
        self.unpark()?;
        self.flush()
    }

    /// Runs this command and those behind it in the queue; false if the thread is to end.
    fn run_all(&mut self, first: Command, queue: &Receiver<Command>) -> Result<bool, RouterGone> {
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Batch(batch) => {
                    self.shared.batches.fetch_sub(1, Ordering::AcqRel);
                    self.batch(&batch)?;
                }
                Command::Message { after, message } => {
                    self.shared.message_bytes.fetch_sub(message.size(), Ordering::AcqRel);
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
        if self.shared.is_wanted() {
            self.follow();
            for record in batch.records().filter(|record| record.stream < StreamId::LOCAL) {
                let matches = self.matching(&record.topic);
                if matches.len() > 0 {
                    let origin = self.shared.origins.take(record.stream, record.offset);
                    self.offer(message_of(record, origin), matches)?;
                }
            }
        }
        self.processed = batch.number();
        self.shared.origins.forget(self.reached());
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
        self.offer_if_wanted(message)
    }

    fn unpark(&mut self) -> Result<(), RouterGone> {
        let reached = self.reached();
        while let Some((_, waiting)) = self.parked.pop_front_if(|(after, _)| *after <= reached) {
            match waiting {
                Waiting::Message(message) => self.offer_if_wanted(message)?,
                Waiting::Barrier(done) => {
                    self.flush()?;
                    self.shared.progress.tell(self.pushed, done);
                }
            }
        }
        Ok(())
    }

    fn reached(&self) -> Batch {
        self.processed.max(Batch(self.shared.skipped.load(Ordering::Acquire)))
    }

    fn follow(&mut self) {
        let reached = self.reached();
        self.subscriptions.follow(&self.shared.table, reached);
    }

    /// The message's subscribers. A search that became too long is counted: some of them may miss it.
    fn matching(&mut self, topic: &str) -> Matches {
        let matches = self.subscriptions.matching(topic);
        if matches.is_cut() {
            add(&self.shared.stats.fanout_cut, 1);
            self.tell_cut(topic);
        }
        matches
    }

    /// Says so once an hour; the metric has all of them.
    fn tell_cut(&mut self, topic: &str) {
        if self.told_cut.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told_cut = Some(Instant::now());
            let topic = PeerText::new(topic);
            tracing::warn!(
                ?topic,
                "the search for local subscribers ended at its bound of {MAX_STEPS} steps, and some may have missed a message: too many overlapping filters with `+` match this topic; subscribe with fewer, or with `#`"
            );
        }
    }

    fn offer_if_wanted(&mut self, message: Message) -> Result<(), RouterGone> {
        self.follow();
        let Ok(topic) = std::str::from_utf8(&message.topic) else {
            return Ok(());
        };
        let matches = self.matching(topic);
        if matches.len() == 0 {
            return Ok(());
        }
        self.offer(message, matches)
    }

    /// Gives the message to those who are owed it at QoS 1 or 2, and adds it to the next push for the others.
    fn offer(&mut self, message: Message, mut matches: Matches) -> Result<(), RouterGone> {
        let owed = matches.take_owed(message.qos);
        if owed.len() > 0 {
            owed.owe(&Arc::new(message.alone()));
        }
        if matches.len() == 0 {
            return Ok(());
        }
        self.push_bytes += message.size();
        self.push_recipients += matches.len();
        self.push.push((message, matches));
        if self.push.len() >= PUSH || self.push_bytes >= PUSH_BYTES || self.push_recipients >= PUSH_RECIPIENTS {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Pushes what was collected, once the push before the last one has left the router. So at most two are in the router, and
    /// it never drops one.
    fn flush(&mut self) -> Result<(), RouterGone> {
        if self.push.is_empty() {
            return Ok(());
        }
        self.shared.progress.wait(self.pushed_before)?;
        self.pushed_before = self.pushed;
        let mut payloads = Vec::with_capacity(self.push.len());
        let numbered = (self.pushed + 1..).zip(self.push.drain(..)).map(|(number, (message, matches))| {
            payloads.push(envelope::wrap(number, &message));
            (number, matches)
        });
        self.shared.progress.hand_over(numbered);
        self.pushed += payloads.len() as u64;
        self.push_bytes = 0;
        self.push_recipients = 0;
        self.entrance.push(payloads.into_iter())
    }
}

fn message_of(record: Record, origin: Origin) -> Message {
    Message {
        topic: record.topic.into_bytes().into(),
        origin,
        qos: record.qos,
        retain: record.retain,
        expiry: record.expiry,
        properties: record.properties,
        payload: record.payload,
    }
}
