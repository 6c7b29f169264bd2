//! What one connection has sent and not yet seen acked. It counts what still waits in rumqttc's request channel, and never
//! lets a packet id come round while its last use is unacked (rumqttc would stop on such a collision).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes of payload that may be in flight beside a single larger packet.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The slowest line that is waited for, in bytes per second: a large publish takes its time to arrive, and buffers on the way hide how
/// much of it has.
const SLOWEST_LINE: u32 = 1024;
/// What is sent within the ack timeout on any line.
const SMALL: usize = 8 * 1024;

#[derive(Debug)]
pub(crate) struct InFlight<T> {
    cap: usize,
    channel: usize,
    ids: u16,
    last_id: u16,
    queued: VecDeque<Entry<T>>,
    queued_acked: usize,
    in_flight: HashMap<u16, Entry<T>>,
    /// Packet ids with their send times, oldest first; acked ones are skipped lazily.
    order: VecDeque<(u16, Instant)>,
    bytes: usize,
    /// When the oldest became the oldest: its turn on the line.
    turn: Option<Instant>,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    acked: bool,
    bytes: usize,
    at: Instant,
}

/// What [`InFlight::written`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written<T> {
    /// It waits for its ack.
    Waiting,
    /// QoS 0: nothing more will come.
    Done(T),
    /// Nothing was queued: the client and we disagree.
    Unknown,
}

impl<T> InFlight<T> {
    /// `cap` publishes at QoS 1 at most, `channel` of them in the request channel, `ids` packet ids before they come round.
    pub(crate) fn new(cap: u16, channel: usize, ids: u16) -> Self {
        let cap = usize::from(cap.min(ids).max(1));
        let (queued, in_flight, order) = (VecDeque::new(), HashMap::with_capacity(cap), VecDeque::with_capacity(cap));
        Self {
            cap,
            channel,
            ids,
            last_id: 0,
            queued,
            queued_acked: 0,
            in_flight,
            order,
            bytes: 0,
            turn: None,
        }
    }

    /// Whether another publish may be handed to the client.
    pub(crate) fn has_room(&self) -> bool {
        self.queued.len() < self.channel
            && self.unacked() < self.cap
            && !self.in_flight.contains_key(&self.next_id())
            && (self.bytes < MAX_BYTES || self.is_empty())
    }

    /// A publish was put into the request channel.
    pub(crate) fn queue(&mut self, item: T, acked: bool, bytes: usize, now: Instant) {
        if acked {
            let id = self.next_id();
            self.last_id = if id == self.ids { 0 } else { id };
            self.queued_acked += 1;
        }
        self.bytes += bytes;
        self.queued.push_back(Entry {
            item,
            acked,
            bytes,
            at: now,
        });
    }

    /// The client wrote the oldest queued publish under this packet id, 0 for QoS 0.
    pub(crate) fn written(&mut self, id: u16, now: Instant) -> Written<T> {
        // An id whose last use is unacked, or none at QoS 1, would let an ack settle the wrong record.
        if self.in_flight.contains_key(&id) || self.queued.front().is_some_and(|entry| entry.acked == (id == 0)) {
            return Written::Unknown;
        }
        let Some(mut entry) = self.queued.pop_front() else {
            return Written::Unknown;
        };
        if !entry.acked {
            self.bytes -= entry.bytes;
            return Written::Done(entry.item);
        }
        self.queued_acked -= 1;
        entry.at = now;
        self.order.push_back((id, now));
        self.in_flight.insert(id, entry);
        Written::Waiting
    }

    /// The peer acked this packet id. `None` if nothing waited for it.
    pub(crate) fn acked(&mut self, id: u16, now: Instant) -> Option<T> {
        let entry = self.in_flight.remove(&id)?;
        self.bytes -= entry.bytes;
        if self.order.front() == Some(&(id, entry.at)) {
            self.turn = Some(now);
        }
        while let Some((id, at)) = self.order.front() {
            if self.in_flight.get(id).is_some_and(|entry| entry.at == *at) {
                break;
            }
            self.order.pop_front();
        }
        Some(entry.item)
    }

    /// Since when the oldest publish waits, in the channel or for its ack.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let queued = self.queued.front().map(|entry| entry.at);
        let waiting = self.order.front().map(|(_, at)| *at);
        queued.into_iter().chain(waiting).min()
    }

    /// When the ack of the oldest publish is overdue. Its time runs from when the one before it was acked, for lines are slow and acks
    /// come in order: a line on which publishes arrive is alive. A single ack that is lost still ends it.
    pub(crate) fn ack_due(&self, timeout: Duration) -> Option<Instant> {
        let waiting = self.order.front().and_then(|(id, at)| Some((self.in_flight.get(id)?.bytes, *at)));
        let (bytes, at) = waiting.or_else(|| self.queued.front().map(|entry| (entry.bytes, entry.at)))?;
        let large = u32::try_from(bytes.saturating_sub(SMALL)).unwrap_or(u32::MAX);
        let transfer = Duration::from_secs(1) * large / SLOWEST_LINE;
        Some(self.turn.map_or(at, |turn| turn.max(at)) + timeout + transfer)
    }

    /// What was written at or before `before` and still waits for its ack.
    pub(crate) fn overdue(&self, before: Instant) -> impl Iterator<Item = &T> {
        let old = self.order.iter().take_while(move |(_, at)| *at <= before);
        old.filter_map(|(id, at)| self.in_flight.get(id).filter(|entry| entry.at == *at).map(|entry| &entry.item))
    }

    /// Publishes that wait for an ack or in the channel.
    pub(crate) fn len(&self) -> usize {
        self.queued.len() + self.in_flight.len()
    }

    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.queued.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that waits.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.in_flight.values().chain(&self.queued).map(|entry| &entry.item)
    }

    /// The connection is gone: everything that waited, and whether the peer may have seen it.
    pub(crate) fn into_unacked(self) -> impl Iterator<Item = (T, bool)> {
        let written = self.in_flight.into_values().map(|entry| (entry.item, true));
        // The first one in the channel may have been on its way to the socket.
        let queued = self.queued.into_iter().enumerate().map(|(index, entry)| (entry.item, index == 0));
        written.chain(queued)
    }

    fn unacked(&self) -> usize {
        self.queued_acked + self.in_flight.len()
    }

    /// rumqttc counts from 1 to its limit and starts again.
    const fn next_id(&self) -> u16 {
        self.last_id + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_the_channel_counts_against_the_cap() {
        let now = Instant::now();
        let mut window = InFlight::new(3, 10, 100);
        for item in 0..3 {
            assert!(window.has_room());
            window.queue(item, true, 1, now);
        }
        assert!(!window.has_room());
        assert_eq!(window.written(1, now), Written::Waiting);
        assert!(!window.has_room(), "written is not acked");
        assert_eq!(window.acked(1, now), Some(0));
        assert!(window.has_room());
    }

    #[test]
    fn a_packet_id_is_not_used_again_while_its_last_use_is_unacked() {
        let now = Instant::now();
        let mut window = InFlight::new(2, 10, 4);
        window.queue(100, true, 1, now);
        assert_eq!(window.written(1, now), Written::Waiting);
        for id in 2..=4 {
            assert!(window.has_room(), "{id}");
            window.queue(100 + id, true, 1, now);
            assert_eq!(window.written(id, now), Written::Waiting);
            assert_eq!(window.acked(id, now), Some(100 + id));
        }
        assert!(!window.has_room(), "the next id is 1 again");
        assert_eq!(window.acked(1, now), Some(100));
        assert!(window.has_room());
    }

    #[test]
    fn acks_out_of_order_and_for_unknown_ids_move_nothing_else() {
        let start = Instant::now();
        let now = start;
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = InFlight::new(10, 10, 100);
        for id in 1..=3 {
            window.queue(id, true, 1, start);
            window.written(id, at(u64::from(id)));
        }
        assert_eq!(window.acked(2, now), Some(2));
        assert_eq!(window.acked(2, now), None);
        assert_eq!(window.acked(77, now), None);
        assert_eq!(window.oldest(), Some(at(1)));
        assert_eq!(window.overdue(at(2)).collect::<Vec<_>>(), [&1]);
        assert_eq!(window.acked(1, now), Some(1));
        assert_eq!(window.oldest(), Some(at(3)));
        assert_eq!(window.into_unacked().collect::<Vec<_>>(), [(3, true)]);
    }

    #[test]
    fn qos_0_is_done_when_written() {
        let now = Instant::now();
        let mut window = InFlight::new(1, 10, 100);
        window.queue('a', false, 1, now);
        window.queue('b', true, 1, now);
        assert_eq!(window.written(0, now), Written::Done('a'));
        assert_eq!(window.written(1, now), Written::Waiting);
        assert_eq!(window.written(2, now), Written::Unknown);
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn an_id_that_contradicts_the_window_settles_nothing() {
        let now = Instant::now();
        let mut window = InFlight::new(3, 10, 10);
        window.queue('a', true, 1, now);
        window.queue('b', true, 1, now);
        assert_eq!(window.written(0, now), Written::Unknown, "QoS 1 has an id");
        assert_eq!(window.written(1, now), Written::Waiting);
        assert_eq!(window.written(1, now), Written::Unknown, "1 is unacked");
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn large_payloads_fill_the_window_by_their_bytes() {
        let now = Instant::now();
        let mut window = InFlight::new(1000, 1000, 1000);
        window.queue(0, true, MAX_BYTES + 1, now);
        assert!(!window.has_room());
        window.written(1, now);
        window.acked(1, now);
        assert!(window.has_room());
    }

    #[test]
    fn a_publish_that_moves_over_a_slow_line_has_the_time_that_it_takes() {
        let timeout = Duration::from_secs(20);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = InFlight::new(10, 10, 100);
        for id in 1..=3 {
            window.queue(id, true, 120 * 1024, start);
            window.written(id, start);
        }
        assert!(window.ack_due(timeout).unwrap() > at(120), "1 KiB/s");
        window.acked(1, at(30));
        window.acked(2, at(60));
        assert!(window.ack_due(timeout).unwrap() > at(60 + 120), "the third has waited for its turn");
    }

    #[test]
    fn a_lost_ack_is_missed_after_the_timeout_however_many_others_come() {
        let timeout = Duration::from_secs(20);
        let start = Instant::now();
        let mut window = InFlight::new(100, 100, 1000);
        for id in 1..=50 {
            window.queue(id, true, 300, start);
            window.written(id, start);
        }
        for id in 2..=50 {
            window.acked(id, start + Duration::from_secs(10));
        }
        assert_eq!(window.ack_due(timeout), Some(start + timeout));
    }
}
