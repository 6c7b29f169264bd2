//! Where the front's connections and the watch meet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_broker::{Accepted, Disconnection, Observer, Publishes, TracedPublish};
use forebay_wal::{Offset, StreamId, Timestamp};

use super::engine::{Engine, MAX_TOPIC, Trail};

/// Topics that a connection keeps at hand; a device has one or a few.
const TRAILS: usize = 8;

/// An observer of the device side, in front of another one.
pub(crate) struct Witness {
    pub(super) inner: Arc<dyn Observer>,
    pub(super) engine: Arc<Engine>,
}

/// What one connection knows of its own topics.
struct Walk {
    engine: Arc<Engine>,
    identity: Arc<str>,
    trails: Vec<Trail>,
    /// The one that makes room next.
    oldest: usize,
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

    fn publishes(&self, identity: &Arc<str>) -> Option<Box<dyn Publishes>> {
        self.engine.watches().then(|| {
            Box::new(Walk {
                engine: Arc::clone(&self.engine),
                identity: Arc::clone(identity),
                trails: Vec::new(),
                oldest: 0,
            }) as _
        })
    }

    fn connected(&self, identity: &Arc<str>, address: SocketAddr, at: Timestamp) {
        self.inner.connected(identity, address, at);
        self.engine.connected(identity, address, &at);
    }

    fn ended(&self, identity: &Arc<str>, address: SocketAddr, cause: Option<Disconnection>, at: Timestamp) {
        self.inner.ended(identity, address, cause, at);
        self.engine.ended(identity, address, cause, &at);
    }
}

impl Publishes for Walk {
    fn accepted(&mut self, publish: &Accepted<'_>) {
        let Self { engine, identity, .. } = self;
        let walk = |trail: &mut Trail| engine.take(trail, identity, publish.payload, &publish.received);
        if let Some(trail) = self.trails.iter_mut().find(|trail| *trail.topic == *publish.topic) {
            return walk(trail);
        }
        let mut trail = engine.trail(identity, publish.topic);
        walk(&mut trail);
        // A longer one would be a way to fill the memory.
        if publish.topic.len() > MAX_TOPIC {
        } else if self.trails.len() < TRAILS {
            self.trails.push(trail);
        } else {
            self.trails[self.oldest] = trail;
            self.oldest = (self.oldest + 1) % TRAILS;
        }
    }
    fn handled(&mut self) {
        self.trails.iter_mut().for_each(Trail::settle);
    }
}
