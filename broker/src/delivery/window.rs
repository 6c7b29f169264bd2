//! The packet ids in flight to one peer, and where each is in its handshake. The send quota of MQTT 5 is what the window has left.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use crate::codec::{QoS, Version};

/// In flight to a peer of MQTT 3.1.1, which has no Receive Maximum.
const WINDOW_311: u16 = 20;
/// The most in flight to a peer of MQTT 5, whatever it allows.
const MAX_WINDOW: u16 = 1000;
/// Bytes of a topic that are kept to name what is in flight.
const NAME_BYTES: usize = 64;
/// What an id in flight counts for.
pub(super) const IN_FLIGHT_BYTES: u64 = 160;

/// How many publishes may be in flight to a peer with this Receive Maximum.
pub(crate) fn window_of(version: Version, receive_maximum: Option<NonZeroU16>) -> u16 {
    match version {
        Version::V311 => WINDOW_311,
        Version::V5 => receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(MAX_WINDOW),
    }
}

/// The ids in flight.
pub(super) struct Window {
    limit: u16,
    last: u16,
    in_flight: BTreeMap<NonZeroU16, InFlight>,
}

struct InFlight {
    awaits: Awaits,
    since: Instant,
    /// The beginning of its topic.
    name: Box<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// PUBACK.
    Ack,
    /// PUBREC.
    Receipt,
    /// PUBCOMP.
    Completion,
}

/// What a PUBREC means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// PUBREL is due, also if it was sent before.
    Release,
    /// The peer refuses the message: it is done, and there is no PUBREL (MQTT 5, 4.3.3).
    Refused,
    /// There is no such id in flight.
    Unknown,
}

impl Window {
    pub(super) fn new(limit: u16) -> Self {
        Self {
            limit,
            last: 0,
            in_flight: BTreeMap::new(),
        }
    }

    /// How many more publishes may be in flight.
    pub(super) fn room(&self) -> usize {
        usize::from(self.limit).saturating_sub(self.in_flight.len())
    }

    /// The number of ids in flight.
    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// The next id that is not in flight. There is one while there is room.
    pub(super) fn free_id(&self) -> NonZeroU16 {
        let mut id = NonZeroU16::new(self.last.wrapping_add(1)).unwrap_or(NonZeroU16::MIN);
        while self.in_flight.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(NonZeroU16::MIN);
        }
        id
    }

    /// A publish with this free id was sent.
    pub(super) fn begin(&mut self, id: NonZeroU16, qos: QoS, topic: &[u8], now: Instant) {
        self.last = id.get();
        let topic = std::str::from_utf8(topic).unwrap_or("");
        let in_flight = InFlight {
            awaits: if qos == QoS::ExactlyOnce { Awaits::Receipt } else { Awaits::Ack },
            since: now,
            name: topic[..topic.floor_char_boundary(NAME_BYTES)].into(),
        };
        self.in_flight.insert(id, in_flight);
    }

    /// PUBACK; whether it ends something that was in flight.
    pub(super) fn acked(&mut self, id: NonZeroU16) -> bool {
        self.end(id, Awaits::Ack)
    }

    /// PUBREC, with a code that refuses or without.
    pub(super) fn received(&mut self, id: NonZeroU16, is_refused: bool, now: Instant) -> Received {
        match self.in_flight.get_mut(&id) {
            Some(in_flight) if in_flight.awaits == Awaits::Receipt => {
                if is_refused {
                    self.in_flight.remove(&id);
                    return Received::Refused;
                }
                in_flight.awaits = Awaits::Completion;
                in_flight.since = now;
                Received::Release
            }
            Some(in_flight) if in_flight.awaits == Awaits::Completion => Received::Release,
            _ => Received::Unknown,
        }
    }

    /// PUBCOMP; whether it ends something that was in flight.
    pub(super) fn completed(&mut self, id: NonZeroU16) -> bool {
        self.end(id, Awaits::Completion)
    }

    /// Of what has waited for its answer for this long, what has waited longest: its id and the beginning of its topic.
    pub(super) fn overdue(&self, now: Instant, limit: Duration) -> Option<(NonZeroU16, &str)> {
        let (id, in_flight) = self.in_flight.iter().min_by_key(|(_, in_flight)| in_flight.since)?;
        let waited = now.saturating_duration_since(in_flight.since);
        (waited >= limit).then_some((*id, &*in_flight.name))
    }

    fn end(&mut self, id: NonZeroU16, awaits: Awaits) -> bool {
        let is_due = self.in_flight.get(&id).is_some_and(|in_flight| in_flight.awaits == awaits);
        if is_due {
            self.in_flight.remove(&id);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> NonZeroU16 {
        NonZeroU16::new(id).unwrap()
    }

    fn sent(window: &mut Window, qos: QoS) -> NonZeroU16 {
        let id = window.free_id();
        window.begin(id, qos, b"t", Instant::now());
        id
    }

    #[test]
    fn d2_the_send_quota_grows_once_for_each_id_in_flight() {
        let mut window = Window::new(4);
        let (one, two, three, four) = (
            sent(&mut window, QoS::AtLeastOnce),
            sent(&mut window, QoS::ExactlyOnce),
            sent(&mut window, QoS::ExactlyOnce),
            sent(&mut window, QoS::AtLeastOnce),
        );
        assert_eq!(window.room(), 0);
        assert!(window.acked(one) && !window.acked(one), "twice");
        assert!(!window.acked(id(99)) && !window.completed(id(99)), "unknown");
        assert!(!window.acked(two) && !window.completed(two), "the wrong answer");
        assert!(!window.completed(four));
        assert_eq!(window.room(), 1);
        let now = Instant::now();
        assert_eq!(window.received(two, true, now), Received::Refused);
        assert_eq!(window.received(two, true, now), Received::Unknown);
        assert_eq!(window.room(), 2);
        assert_eq!(window.received(three, false, now), Received::Release);
        assert_eq!(window.received(three, false, now), Received::Release, "again");
        assert_eq!(window.received(four, false, now), Received::Unknown, "of a publish at QoS 1");
        assert_eq!(window.room(), 2);
        assert!(window.completed(three) && !window.completed(three));
        assert!(window.acked(four));
        assert_eq!((window.room(), window.len()), (4, 0));
    }

    #[test]
    fn an_id_in_flight_is_not_given_again() {
        let mut window = Window::new(3);
        let kept = sent(&mut window, QoS::AtLeastOnce);
        let mut before = kept;
        for _ in 0..2 * usize::from(u16::MAX) {
            let next = sent(&mut window, QoS::AtLeastOnce);
            assert!(next != kept && next != before);
            assert!(window.acked(next));
            before = next;
        }
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn the_window_is_what_the_peer_allows_within_the_bound() {
        let five = |maximum| window_of(Version::V5, NonZeroU16::new(maximum));
        assert_eq!((five(1), five(500), five(u16::MAX), five(0)), (1, 500, MAX_WINDOW, MAX_WINDOW));
        assert_eq!(window_of(Version::V311, None), WINDOW_311);
    }

    #[test]
    fn what_waits_longest_for_its_answer_is_named() {
        let mut window = Window::new(4);
        let begin = Instant::now();
        let limit = Duration::from_secs(60);
        let at = |seconds| begin + Duration::from_secs(seconds);
        for (seconds, topic) in [(5, "b"), (0, "a"), (9, "c")] {
            let id = window.free_id();
            window.begin(id, QoS::ExactlyOnce, topic.as_bytes(), at(seconds));
        }
        assert_eq!(window.overdue(at(59), limit), None);
        assert_eq!(window.overdue(at(60), limit), Some((id(2), "a")));
        window.received(id(2), false, at(60));
        assert_eq!(window.overdue(at(65), limit), Some((id(1), "b")), "each answer has its time");
    }
}
