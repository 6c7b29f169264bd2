//! The way into the router: what was committed, and what needs no storage in its turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use forebay_wal::{Batch, CommittedBatch, Record, StreamId};
use tokio::sync::oneshot;

use super::envelope::{self, Message};
use super::router::{Entrance, RouterGone};
use super::{Command, PUSH, PUSH_BYTES, QUEUE, Shared, TICK};
use crate::observe::add;

/// The thread's state.
pub(super) struct Inlet {
    entrance: Entrance,
    shared: Arc<Shared>,
    parked: VecDeque<(Batch, Waiting)>,
    /// What goes to the router next: as much at once as has gathered.
    push: Vec<Message>,
    push_bytes: usize,
    processed: Batch,
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
            push: Vec::new(),
            push_bytes: 0,
            processed: Batch(0),
            pushed: 0,
            pushed_before: 0,
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        loop {
            forebay_wal::panic_if_asked(super::INLET);
            let result = match queue.recv_timeout(TICK) {
                Ok(command) => self.run_all(command, queue),
                Err(RecvTimeoutError::Timeout) => self.unpark().and_then(|()| self.flush()).map(|()| true),
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
            for record in batch.records().filter(|record| record.stream < StreamId::LOCAL) {
                if self.is_wanted(&record.topic) {
                    self.offer(message_of(record))?;
                }
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

    fn is_wanted(&self, topic: &str) -> bool {
        self.shared.table().is_wanted(topic)
    }

    fn offer_if_wanted(&mut self, message: Message) -> Result<(), RouterGone> {
        match std::str::from_utf8(&message.topic) {
            Ok(topic) if self.is_wanted(topic) => self.offer(message),
            _ => Ok(()),
        }
    }

    /// Adds the message to the next push.
    fn offer(&mut self, message: Message) -> Result<(), RouterGone> {
        self.push_bytes += message.size();
        self.push.push(message);
        if self.push.len() >= PUSH || self.push_bytes >= PUSH_BYTES {
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
        let numbered = (self.pushed + 1..).zip(&self.push);
        self.entrance
            .push(numbered.map(|(number, message)| envelope::wrap(number, message)))?;
        self.pushed += self.push.len() as u64;
        self.push.clear();
        self.push_bytes = 0;
        Ok(())
    }
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
