//! The canary: a small record of our own that goes the whole way, through log, bridge and the cloud's ack (decision 0009).
//!
//! One is under way at most. It is settled by the bridge, which tells us, or lost to its stream's bounds, which shows when a
//! later record of its stream is delivered, or nothing waits any more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_bridge::{Answer, Fate};
use forebay_topic::{Template, TopicFilter};
use forebay_wal::{Batch, Clock, CommitError, CommitListener, Log, NewRecord, Producer, Record, RecordId, StreamId};
use tokio_util::sync::CancellationToken;

use crate::config::canary_topic;

/// The route's name in records and in `/status`: no filter can be written so.
pub(crate) const ROUTE: &str = "#canary";
/// Whose records they are in the ledger; no device gets this identity from `forebay certs`.
pub(crate) const IDENTITY: &str = "$canary";
/// A record this far beyond the canary overtakes nothing that is still in flight: `cloud.in_flight` is 1,000 at most.
const FLIGHT: u64 = 1_000;
/// How often a canary that waits is looked after.
const LOOK: Duration = Duration::from_secs(1);
const NONE: u64 = u64::MAX;

/// Why a canary did not arrive: the labels of `forebay_canary_failed_total`.
pub(crate) const FAILURES: [&str; 4] = ["refused", "dead", "expired", "lost"];

/// What the bridge sends beside the log, to prove a connection before it accuses a record on it.
#[must_use]
pub(crate) fn of_the_bridge(gateway: &str) -> forebay_bridge::Canary {
    forebay_bridge::Canary {
        topic: canary_topic(gateway),
        payload: format!("{{\"gateway\":\"{gateway}\",\"canary\":0}}").into(),
    }
}

/// The route that the bridge's mapping has for canaries, whether they are sent or not: one may still wait.
pub(crate) fn route(gateway: &str) -> anyhow::Result<forebay_bridge::Route> {
    Ok(forebay_bridge::Route {
        name: ROUTE.to_owned(),
        from: TopicFilter::parse(&canary_topic(gateway))?,
        to: Template::parse("{topic}")?,
        qos: forebay_bridge::Qos::AtLeastOnce,
        keep_retain: false,
    })
}

/// The canary and what became of it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Canary {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gateway: String,
    interval: Duration,
    stream: StreamId,
    pending: Mutex<Option<Pending>>,
    /// Its offset, for a quick look; [`NONE`] = none is under way.
    offset: AtomicU64,
    commit_failed: AtomicBool,
    sent: AtomicU64,
    acked: AtomicU64,
    bytes: AtomicU64,
    failed: [AtomicU64; FAILURES.len()],
    /// Milliseconds, [`NONE`] before the first.
    round_trip: AtomicU64,
}

#[derive(Debug)]
struct Pending {
    since: Instant,
    bytes: u64,
}

/// The canary at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CanaryFigures {
    /// How often one is sent.
    pub(crate) interval: Duration,
    /// Appended to the log.
    pub(crate) sent: u64,
    /// Acked by the cloud.
    pub(crate) acked: u64,
    /// Bytes of topic and payload of those acked.
    pub(crate) bytes: u64,
    /// Those that did not arrive, by why.
    pub(crate) failed: Vec<(String, u64)>,
    /// How long the one under way waits; `None` if none is.
    pub(crate) waiting: Option<Duration>,
    /// From append to ack, of the newest that was acked.
    pub(crate) round_trip: Option<Duration>,
}

impl Canary {
    /// A canary each `interval` through this stream.
    #[must_use]
    pub(crate) fn new(gateway: &str, interval: Duration, stream: StreamId) -> Self {
        let shared = Shared {
            gateway: gateway.to_owned(),
            interval,
            stream,
            pending: Mutex::default(),
            offset: AtomicU64::new(NONE),
            commit_failed: AtomicBool::new(false),
            sent: AtomicU64::default(),
            acked: AtomicU64::default(),
            bytes: AtomicU64::default(),
            failed: Default::default(),
            round_trip: AtomicU64::new(NONE),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sends one each interval, until shutdown.
    pub(crate) async fn run(self, log: Log, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
        let mut producer = log.producer(Arc::new(self.clone()));
        let mut due = tokio::time::Instant::now() + self.shared.interval;
        while tokio::time::timeout(LOOK.min(self.shared.interval), shutdown.cancelled())
            .await
            .is_err()
        {
            self.look_after(&log);
            if tokio::time::Instant::now() >= due && self.shared.offset.load(Ordering::Acquire) == NONE {
                due = tokio::time::Instant::now() + self.shared.interval;
                self.send(&mut producer, clock.as_ref());
            }
        }
    }

    fn send(&self, producer: &mut Producer, clock: &dyn Clock) {
        let shared = &self.shared;
        let number = shared.sent.load(Ordering::Relaxed) + 1;
        let (topic, payload) = (
            canary_topic(&shared.gateway),
            format!("{{\"gateway\":\"{}\",\"canary\":{number}}}", shared.gateway),
        );
        let record = NewRecord {
            stream: shared.stream,
            received: clock.now(),
            identity: IDENTITY,
            route: ROUTE,
            topic: &topic,
            payload: payload.as_bytes(),
            qos: 1,
            retain: false,
            expiry: None,
            properties: &[],
        };
        // The bridge may settle it before this returns: it has to wait for the lock.
        let mut pending = lock(&shared.pending);
        match producer.append(&[record]) {
            Ok(ticket) => {
                shared.sent.fetch_add(1, Ordering::Relaxed);
                *pending = Some(Pending {
                    since: Instant::now(),
                    bytes: (topic.len() + payload.len()) as u64,
                });
                shared.offset.store(ticket.offset.0, Ordering::Release);
            }
            Err(error) => {
                tracing::debug!(%error, "the log did not accept the canary");
                shared.failed[0].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Ends one that was never stored, or is no longer there.
    fn look_after(&self, log: &Log) {
        let shared = &self.shared;
        if shared.commit_failed.swap(false, Ordering::AcqRel) {
            self.end(None, "refused");
        }
        let waits_long = lock(&shared.pending).as_ref().is_some_and(|pending| pending.since.elapsed() > LOOK);
        if waits_long
            && log
                .status()
                .streams
                .iter()
                .any(|stream| stream.id == shared.stream && stream.waiting == 0)
        {
            self.end(None, "lost");
        }
    }

    /// Takes the one under way out, if there is one, and counts what became of it.
    fn end(&self, acked: Option<()>, failure: &str) {
        let shared = &self.shared;
        let mut pending = lock(&shared.pending);
        shared.offset.store(NONE, Ordering::Release);
        let Some(pending) = pending.take() else { return };
        if acked.is_some() {
            let took = u64::try_from(pending.since.elapsed().as_millis()).unwrap_or(NONE - 1);
            shared.round_trip.store(took, Ordering::Relaxed);
            shared.acked.fetch_add(1, Ordering::Relaxed);
            shared.bytes.fetch_add(pending.bytes, Ordering::Relaxed);
        } else if let Some(at) = FAILURES.iter().position(|known| *known == failure) {
            shared.failed[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The bridge has settled a record.
    fn settled(&self, id: RecordId, fate: Fate) {
        let shared = &self.shared;
        if id.stream != shared.stream || shared.offset.load(Ordering::Acquire) == NONE {
            // Perhaps the very one whose append has not returned yet.
            if id.stream != shared.stream || lock(&shared.pending).is_none() {
                return;
            }
        }
        let canary = shared.offset.load(Ordering::Acquire);
        match fate {
            _ if canary == NONE => {}
            Fate::Delivered if id.offset.0 == canary => self.end(Some(()), ""),
            Fate::Expired if id.offset.0 == canary => self.end(None, "expired"),
            Fate::Dead if id.offset.0 == canary => self.end(None, "dead"),
            Fate::Delivered if id.offset.0 > canary.saturating_add(FLIGHT) => self.end(None, "lost"),
            _ => {}
        }
    }

    /// What became of them so far.
    #[must_use]
    pub(crate) fn figures(&self) -> CanaryFigures {
        let shared = &self.shared;
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failed = FAILURES.iter().zip(&shared.failed);
        CanaryFigures {
            interval: shared.interval,
            sent: value(&shared.sent),
            acked: value(&shared.acked),
            bytes: value(&shared.bytes),
            failed: failed.map(|(reason, count)| ((*reason).to_owned(), value(count))).collect(),
            waiting: lock(&shared.pending).as_ref().map(|pending| pending.since.elapsed()),
            round_trip: Some(value(&shared.round_trip))
                .filter(|took| *took != NONE)
                .map(Duration::from_millis),
        }
    }
}

impl CommitListener for Canary {
    fn committed(&self, _batch: Batch) {}

    fn failed(&self, _batch: Batch, _error: &CommitError) {
        self.shared.commit_failed.store(true, Ordering::Release);
    }
}

/// Stands in front of the bridge's other observer.
pub(crate) struct Witness {
    pub(crate) inner: Arc<dyn forebay_bridge::Observer>,
    pub(crate) canary: Canary,
}

impl forebay_bridge::Observer for Witness {
    fn delivered(&self, age: Duration, late: bool) {
        self.inner.delivered(age, late);
    }

    fn sent(&self, record: &Record, again: bool) {
        self.inner.sent(record, again);
    }

    fn answered(&self, record: &Record, sent: Instant, answer: Answer) {
        self.inner.answered(record, sent, answer);
    }

    fn settled(&self, id: RecordId, fate: Fate) {
        self.inner.settled(id, fate);
        self.canary.settled(id, fate);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use forebay_wal::{Epoch, Offset};

    use super::*;

    fn under_way(offset: u64) -> Canary {
        let canary = Canary::new("plant-7", Duration::from_secs(300), StreamId(0));
        *lock(&canary.shared.pending) = Some(Pending {
            since: Instant::now(),
            bytes: 50,
        });
        canary.shared.offset.store(offset, Ordering::Release);
        canary
    }

    fn id(stream: u8, offset: u64) -> RecordId {
        RecordId {
            epoch: Epoch(1),
            stream: StreamId(stream),
            offset: Offset(offset),
        }
    }

    fn failed(canary: &Canary) -> Vec<u64> {
        canary.figures().failed.iter().map(|(_, count)| *count).collect()
    }

    #[test]
    fn only_its_own_record_acks_it() {
        let canary = under_way(7);
        for other in [id(0, 6), id(0, 8), id(1, 7)] {
            canary.settled(other, Fate::Delivered);
        }
        assert_eq!(canary.figures().acked, 0);
        assert!(canary.figures().waiting.is_some());
        canary.settled(id(0, 7), Fate::Delivered);
        let figures = canary.figures();
        assert_eq!((figures.acked, figures.bytes, figures.waiting), (1, 50, None));
        assert!(figures.round_trip.is_some());
        assert_eq!(failed(&canary), [0, 0, 0, 0]);
    }

    #[test]
    fn one_that_does_not_arrive_is_counted_by_why() {
        let canary = under_way(7);
        canary.settled(id(0, 7), Fate::Dead);
        assert_eq!(failed(&canary), [0, 1, 0, 0]);
        let canary = under_way(7);
        canary.settled(id(0, 7), Fate::Expired);
        assert_eq!(failed(&canary), [0, 0, 1, 0]);
        // Evicted: the stream has gone on without it.
        let canary = under_way(7);
        canary.settled(id(0, 7 + FLIGHT), Fate::Delivered);
        assert_eq!(failed(&canary), [0, 0, 0, 0], "what was in flight beside it proves nothing");
        canary.settled(id(0, 8 + FLIGHT), Fate::Delivered);
        assert_eq!(failed(&canary), [0, 0, 0, 1]);
        assert_eq!(canary.figures().waiting, None);
    }
}
