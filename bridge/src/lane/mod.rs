//! One lane: what it knows beyond a single connection to the cloud.
//!
//! The life of its connections is in `run`, what is sent in `send`, what the cloud's answers do in `acks`; suspended
//! pairs are tried in `probe`. What belongs to one connection is in `connection_state`.

mod acks;
mod connection_state;
mod in_a_row;
mod probe;
mod run;
mod send;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use forebay_topic::PeerLog;
use forebay_wal::{Clock, Log, Partition, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::flow::maybe_delivered::MaybeDelivered;
use crate::flow::rate_limit::RateLimiter;
use crate::flow::read_ahead::{ReadAhead, ReadDone};
use crate::lane::in_a_row::InARow;
use crate::lane::probe::Probe;
use crate::link::backoff::Retries;
use crate::link::connector::Connector;
use crate::message::item::Item;
use crate::refusal::poison::Poison;
use crate::refusal::suspensions::Suspensions;
use crate::refusal::waiting_devices::WaitingDevices;
use crate::{Config, Handle, Mapping, Observer, Suspension};

/// What a process that was killed may have sent without the log knowing of it, beside its window, when nothing paces it.
const UNPACED_TAIL: u64 = 10_000;

pub(crate) struct Lane {
    pub(crate) config: Arc<Config>,
    pub(crate) log: Log,
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) handle: Handle,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) start: Timestamp,
    /// In order of priority.
    pub(crate) streams: Vec<ReadAhead>,
    pub(crate) waiting: WaitingDevices<Item>,
    pub(crate) suspensions: Suspensions,
    pub(crate) poison: Poison,
    pub(crate) probe: Probe,
    pub(crate) rate_limiter: RateLimiter,
    pub(crate) maybe_delivered: MaybeDelivered,
    pub(crate) picks: u32,
    /// The peer closed after publishes at QoS 0, for which it has no other answer: they go at QoS 1 until that is over.
    pub(crate) ack_all: bool,
    pub(crate) next_lower: usize,
    pub(crate) reads: JoinSet<ReadDone>,
    pub(crate) reader_lost: bool,
    pub(crate) wake: Arc<Notify>,
    pub(crate) connector: Connector,
    pub(crate) retries: Retries,
    pub(crate) failures: InARow,
    /// Which lines that the cloud or a device can cause are written to the log.
    pub(crate) peer_log: Arc<PeerLog>,
}

impl Lane {
    pub(crate) fn new(
        config: Config,
        log: Log,
        mapping: Arc<Mapping>,
        handle: Handle,
        observer: Arc<dyn Observer>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (now, wake) = (Instant::now(), Arc::new(Notify::new()));
        let statuses = log.status().streams;
        let budget = config.read_ahead / statuses.len().max(1);
        let maybe_sent = u64::from(config.in_flight) + config.rate_limit.messages_per_second.map_or(UNPACED_TAIL, u64::from);
        let mut suspensions = Suspensions::new(config.probe_interval);
        let mut streams = Vec::with_capacity(statuses.len());
        for stream in statuses {
            for hold in log.suspensions(stream.id) {
                if config.partitions.contains(Partition::of(&hold.key.identity)) {
                    suspensions.restore(hold.key, now);
                }
            }
            streams.push(ReadAhead::open(
                &log,
                stream.id,
                stream.name,
                config.partitions,
                budget,
                maybe_sent,
                &wake,
            ));
        }
        let lane = Self {
            start: clock.now(),
            streams,
            waiting: WaitingDevices::default(),
            suspensions,
            poison: Poison::new(&config, now),
            probe: Probe::default(),
            rate_limiter: RateLimiter::new(config.rate_limit, now),
            maybe_delivered: MaybeDelivered::default(),
            picks: 0,
            ack_all: false,
            next_lower: 0,
            reads: JoinSet::new(),
            reader_lost: false,
            wake,
            connector: Connector::new(),
            retries: Retries::new(config.backoff),
            failures: InARow::default(),
            peer_log: Arc::default(),
            config: Arc::new(config),
            log,
            mapping,
            handle,
            observer,
            clock,
        };
        lane.report_suspensions();
        lane
    }

    /// Whether a line about `who` and for this reason is written to the log in full; otherwise it is counted.
    pub(crate) fn is_first(&self, who: &str, reason: &'static str, now: Instant) -> bool {
        self.peer_log.is_first(who, reason, now.into_std())
    }

    pub(crate) fn report_suspensions(&self) {
        let name = |id| {
            self.streams
                .iter()
                .find(|source| source.id == id)
                .map_or_else(String::new, |source| source.name.clone())
        };
        let pairs = self.suspensions.pairs();
        let suspended = pairs
            .map(|key| Suspension {
                stream: name(key.stream),
                route: key.route.clone(),
                identity: key.identity.clone(),
            })
            .collect();
        let routes = self.suspensions.routes().map(str::to_owned).collect();
        self.handle
            .update(|status| (status.suspended, status.suspended_routes) = (suspended, routes));
    }
}
