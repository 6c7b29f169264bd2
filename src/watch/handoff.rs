//! From the connections' tasks to the watch's thread: bounded, and nobody waits.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use forebay_broker::{Accepted, Disconnection, Observer, TracedPublish};
use forebay_topic::TopicFilter;
use forebay_wal::{Offset, StreamId, Timestamp};

use super::report::{Counters, add, value};

/// Events that may wait.
pub(super) const QUEUE: usize = 8192;
/// Bytes of payload that may wait.
const MAX_BYTES: usize = 16 << 20;
/// A larger payload is seen but not read.
pub(super) const MAX_PAYLOAD: usize = 64 << 10;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Event {
    Publish(Publish),
    Connected(Arc<str>, SocketAddr, Timestamp),
    Ended(Arc<str>, SocketAddr, Option<Disconnection>, Timestamp),
    Stop,
}

/// A publish that was accepted.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) identity: Arc<str>,
    pub(super) topic: Box<str>,
    /// None = too large to be read.
    pub(super) payload: Option<Box<[u8]>>,
    pub(super) received: Timestamp,
    /// Publishes lost at the hand-off before this one.
    pub(super) lost: u64,
}

/// The front's end: an observer of the device side, in front of another one. It does not block.
pub(crate) struct Witness {
    pub(super) inner: Arc<dyn Observer>,
    pub(super) filters: Vec<TopicFilter>,
    pub(super) references: HashSet<String>,
    pub(super) queue: SyncSender<Event>,
    pub(super) bytes: Arc<AtomicUsize>,
    pub(super) counters: Arc<Counters>,
}

impl Witness {
    fn send(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            add(&self.counters.overflow, 1);
        }
    }
}

impl Observer for Witness {
    fn acked(&self, oldest: Duration, count: u64) {
        self.inner.acked(oldest, count);
    }

    fn traces(&self, stream: StreamId, offset: Offset) -> bool {
        self.inner.traces(stream, offset)
    }

    fn traced(&self, publish: &TracedPublish) {
        self.inner.traced(publish);
    }

    fn accepted(&self, publish: &Accepted<'_>) {
        self.inner.accepted(publish);
        let topic = publish.topic;
        if !self.references.contains(topic) && !self.filters.iter().any(|filter| filter.matches(topic)) {
            return;
        }
        let payload: Option<Box<[u8]>> = (publish.payload.len() <= MAX_PAYLOAD).then(|| Box::from(publish.payload));
        let bytes = payload.as_deref().map_or(0, <[u8]>::len);
        let waiting = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let event = Event::Publish(Publish {
            identity: Arc::clone(publish.identity),
            topic: topic.into(),
            payload,
            received: publish.received,
            lost: value(&self.counters.overflow),
        });
        if waiting > MAX_BYTES || self.queue.try_send(event).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
            add(&self.counters.overflow, 1);
        }
    }

    fn connected(&self, identity: &Arc<str>, address: SocketAddr, at: Timestamp) {
        self.inner.connected(identity, address, at);
        self.send(Event::Connected(Arc::clone(identity), address, at));
    }

    fn ended(&self, identity: &Arc<str>, address: SocketAddr, cause: Option<Disconnection>, at: Timestamp) {
        self.inner.ended(identity, address, cause, at);
        self.send(Event::Ended(Arc::clone(identity), address, cause, at));
    }
}
