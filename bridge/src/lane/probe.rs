//! Trying suspended pairs: the oldest record of a pair first; when the cloud takes it the rest follows, in order and in
//! batches, until the log lets the pair go back into its stream. One pair at a time.

use std::collections::VecDeque;
use std::time::Duration;

use forebay_topic::PeerText;
use forebay_wal::{ReadError, Record, SuspensionKey};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::lane::Lane;
use crate::lane::connection_state::ConnectionState;
use crate::message::item::Item;
use crate::stats::add;

/// Records of a pair that are sent between two looks at the log.
const BATCH: usize = 32;
/// A pair that could not be tried for a passing reason is due again after this.
const SOON: Duration = Duration::from_secs(1);

/// What a read of a suspended pair brought.
pub(crate) type SuspendedRead = (SuspensionKey, Result<Vec<Record>, ReadError>);

#[derive(Debug, Default)]
pub(crate) struct Probe {
    pub(crate) active: Option<SuspensionKey>,
    pub(crate) queue: VecDeque<Item>,
    pub(crate) outstanding: usize,
    pub(crate) stopped: bool,
    pub(crate) reads: JoinSet<SuspendedRead>,
}

impl Probe {
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.outstanding += 1;
        Some(item)
    }

    /// Whether records of a pair are to be sent, or in flight.
    pub(crate) fn is_sending(&self) -> bool {
        !self.queue.is_empty() || self.outstanding > 0
    }
}

impl Lane {
    /// Reads the oldest record of a pair that is due, if no other pair is being tried.
    pub(crate) fn start_probe(&mut self, now: Instant) {
        if self.suspensions.is_empty() || self.probe.active.is_some() || !self.probe.reads.is_empty() {
            return;
        }
        let Some((key, accepted)) = self.suspensions.take_due(now) else {
            return;
        };
        let (log, records) = (self.log.clone(), if accepted { BATCH } else { 1 });
        self.probe.active = Some(key.clone());
        self.probe.stopped = false;
        self.probe.reads.spawn_blocking(move || {
            let result = log.read_suspended(&key, records);
            (key, result)
        });
    }

    pub(crate) fn probe_read_done(&mut self, done: Result<SuspendedRead, JoinError>, connection: &ConnectionState) {
        let now = Instant::now();
        let (key, records) = match done {
            Ok((key, Ok(records))) => (key, records),
            Ok((key, Err(error))) => {
                add(&self.handle.stats().read_errors, 1);
                tracing::error!(%error, device = %key.identity, "the log could not be read");
                (self.probe.active, self.probe.stopped) = (None, false);
                return;
            }
            Err(error) => {
                tracing::error!(%error, "a read of the log died");
                self.probe.active = None;
                return;
            }
        };
        // The connection for which it was read may be gone.
        if self.probe.active.as_ref() != Some(&key) {
            return;
        }
        let Some(source) = self.streams.iter().position(|source| source.id == key.stream) else {
            self.probe.active = None;
            return;
        };
        if records.is_empty() {
            return self.conclude(now);
        }
        let in_flight: Vec<_> = connection.in_flight.iter().map(Item::key).collect();
        let items = records.into_iter().map(|record| Item::new(record, source, true));
        self.probe.queue = items.filter(|item| !in_flight.contains(&item.key())).collect();
        if self.probe.queue.is_empty() {
            // They were in flight when the pair was suspended; their own answers come first.
            self.suspensions.postpone(&key, now + SOON);
            self.probe.active = None;
            return;
        }
        add(&self.handle.stats().probes, 1);
    }

    /// A record of the pair is settled.
    pub(crate) fn probe_settled(&mut self, delivered: bool, now: Instant) {
        self.probe.outstanding = self.probe.outstanding.saturating_sub(1);
        if delivered && let Some(key) = &self.probe.active {
            self.suspensions.accepted(key, now);
        }
        self.conclude_if_done(now);
    }

    /// The cloud refused a record of the pair for the moment.
    pub(crate) fn probe_refused(&mut self, now: Instant) {
        if let Some(key) = &self.probe.active {
            self.suspensions.postpone(key, now + SOON);
        }
        self.stop_probe(now);
    }

    /// The cloud still denies the pair.
    pub(crate) fn probe_denied(&mut self, pair: &SuspensionKey, now: Instant) {
        self.suspensions.deny(pair, now);
        self.report_suspensions();
        self.stop_probe(now);
    }

    /// The connection is gone. On 3.1.1 a probe in flight is why, most likely: then no pair is tried for an interval.
    pub(crate) fn end_probe(&mut self, in_flight: bool, now: Instant) {
        if let Some(key) = self.probe.active.take() {
            if !in_flight {
                self.suspensions.postpone(&key, now);
            } else {
                self.suspensions.postpone_all(now + self.config.probe_interval);
            }
        }
        self.probe.queue.clear();
        (self.probe.outstanding, self.probe.stopped) = (0, false);
    }

    fn stop_probe(&mut self, now: Instant) {
        self.probe.queue.clear();
        self.probe.stopped = true;
        self.probe.outstanding = self.probe.outstanding.saturating_sub(1);
        self.conclude_if_done(now);
    }

    fn conclude_if_done(&mut self, now: Instant) {
        if self.probe.is_sending() {
            return;
        }
        let stopped = std::mem::take(&mut self.probe.stopped);
        if let Some(key) = self.probe.active.take()
            && !stopped
        {
            // Whether more of it waits is for the next read to find: that may take the disk long, and this task has others to serve.
            self.suspensions.postpone(&key, now);
        }
    }

    /// Nothing of the pair is in flight and a read found no more: back into its stream, if readers have passed nothing since.
    fn conclude(&mut self, now: Instant) {
        let Some(key) = self.probe.active.take() else { return };
        if !self.log.resume(&key) {
            return self.suspensions.postpone(&key, now);
        }
        // What was read ahead of this pair before its suspension has been delivered by the probes.
        if let Some(source) = self.streams.iter_mut().find(|source| source.id == key.stream) {
            source.drop_pair(&key);
        }
        self.suspensions.remove(&key);
        if self.is_first(&key.identity, "resumed", now) {
            let device = PeerText::new(&key.identity);
            tracing::info!(route = %key.route, ?device, "the cloud takes this device's messages on this route again");
        }
        self.report_suspensions();
    }
}
