#![allow(clippy::unwrap_used)]

use forebay_wal::{Offset, StreamId};

use super::*;
use crate::link::backoff::Retries;
use crate::{Backoff, Canary};

const CANARY: &str = "plant-7/canary";
const UNEXPLAINED: Close = Close {
    cause: Cause::Peer,
    blame: None,
    sent_unacked: false,
};
const CUT: Close = Close {
    cause: Cause::Line,
    ..UNEXPLAINED
};

const OWN: Close = Close {
    cause: Cause::PeersOwn,
    ..UNEXPLAINED
};

fn canary() -> Canary {
    Canary {
        topic: CANARY.to_owned(),
        payload: b"canary"[..].into(),
    }
}

fn config(version: Version, with_canary: bool) -> Config {
    Config {
        version,
        canary: with_canary.then(canary),
        ..Config::mqtt("plant-7", "cloud.example")
    }
}

/// Over MQTT 5, with no canary: after the quiet moment each connection counts.
fn plain() -> Poison {
    Poison::new(&config(Version::V5, false), Instant::now())
}

fn item_of(stream: u8, offset: u64) -> Item {
    let mut record = canary().item().record;
    (record.stream, record.offset) = (StreamId(stream), Offset(offset));
    record.topic = "devices/d1/telemetry".to_owned();
    Item::new(record, usize::from(stream), false)
}

fn item(offset: u64) -> Item {
    item_of(0, offset)
}

const fn key(offset: u64) -> RecordKey {
    (StreamId(0), Offset(offset))
}

impl Poison {
    /// A close with records of these offsets in flight.
    fn close(&mut self, close: Close, offsets: &[u64]) -> Option<Finding> {
        let items: Vec<_> = offsets.iter().map(|offset| item(*offset)).collect();
        self.closed(close, &items.iter().collect::<Vec<_>>())
    }
}

#[test]
fn a_poison_message_takes_three_closes_alone() {
    let mut poison = plain();
    assert_eq!(poison.close(UNEXPLAINED, &[1, 2, 3]), None);
    assert!(!poison.is_trying(), "one close is the network's");
    assert_eq!(poison.close(UNEXPLAINED, &[1, 2, 3]), None);
    assert!(poison.is_trying());
    poison.forget(key(1));
    assert_eq!(poison.close(UNEXPLAINED, &[2]), None);
    assert_eq!(poison.close(CUT, &[2]), None, "the line");
    assert_eq!(poison.close(UNEXPLAINED, &[2]), None);
    assert_eq!(poison.close(UNEXPLAINED, &[2]), Some(Finding::Suspend(key(2))));
    poison.forget(key(3));
    assert!(!poison.is_trying());
}

#[test]
fn a_reason_of_the_peers_own_that_comes_whenever_one_record_goes_suspends_it_and_makes_no_dead_letter() {
    let mut poison = plain();
    poison.accepted(&item(0).record);
    assert_eq!(poison.close(OWN, &[1, 2]), None);
    assert!(!poison.is_trying(), "once is a quota, a restart, a takeover");
    assert_eq!(poison.close(OWN, &[1, 2]), None);
    assert_eq!(poison.close(UNEXPLAINED, &[1]), None);
    assert_eq!(poison.close(OWN, &[1]), None);
    assert_eq!(poison.close(UNEXPLAINED, &[1]), Some(Finding::Suspend(key(1))));
}

#[test]
fn a_peer_that_is_silent_or_busy_at_the_canary_too_costs_no_record_anything() {
    for version in [Version::V5, Version::V311] {
        let mut poison = Poison::new(&config(version, true), Instant::now());
        let now = Instant::now();
        for _ in 0..20 {
            poison.began(now);
            if poison.turn(true, now) == Turn::Canary {
                poison.canary_sent();
                let finding = poison.closed(OWN, &[&canary().item()]);
                assert!(matches!(finding, None | Some(Finding::Canary)));
            } else {
                assert_eq!(poison.close(OWN, &[1, 2]), None);
            }
        }
        // And it keeps no record from being tried for ever on 3.1.1, where the first connection begins with it.
        assert!(!poison.canary_first || !poison.canaries.are_unknown());
    }
}

/// How long a record that ends each connection with `close` stands in front of the others, at the longest delays, where dialling
/// takes 2 s and each answer 1 s.
fn stands_for(version: Version, with_canary: bool, close: Close, taken_over: bool) -> Duration {
    const DIAL: Duration = Duration::from_secs(2);
    const ANSWER: Duration = Duration::from_secs(1);
    let start = Instant::now();
    let mut now = start;
    let mut poison = Poison::new(&config(version, with_canary), now);
    poison.accepted(&item(0).record);
    poison.canary_answered();
    let mut retries = Retries::new(Backoff::default());
    loop {
        poison.began(now);
        let began = now;
        let in_flight: &[u64] = loop {
            match poison.turn(true, now) {
                Turn::Many => break &[1, 2, 3],
                Turn::Alone => break &[1],
                Turn::Canary => {
                    now += ANSWER;
                    poison.canary_answered();
                }
                Turn::Wait(until) => now = until.unwrap(),
            }
        };
        now += ANSWER;
        let found = poison.close(close, in_flight);
        if found.is_some() {
            return now - start;
        }
        retries.ended(Some(now - began), taken_over);
        if poison.is_searching() {
            retries.searches();
        }
        now += retries.delay(now, 1.0);
        retries.connecting(now);
        now += DIAL;
    }
}

#[test]
fn c10_no_record_that_ends_connections_stands_for_a_minute_on_5_or_five_on_3_1_1() {
    for (close, taken_over) in [(UNEXPLAINED, false), (OWN, false), (OWN, true)] {
        for with_canary in [true, false] {
            let on_5 = stands_for(Version::V5, with_canary, close, taken_over);
            assert!(on_5 < Duration::from_secs(60), "{on_5:?} at {close:?}, taken over: {taken_over}");
            let on_311 = stands_for(Version::V311, with_canary, close, taken_over);
            assert!(on_311 < Duration::from_secs(300), "{on_311:?} at {close:?}");
        }
    }
}

#[test]
fn a_close_on_a_connection_that_is_not_proven_counts_against_no_record() {
    let mut poison = Poison::new(&config(Version::V5, true), Instant::now());
    poison.close(UNEXPLAINED, &[1, 2]);
    poison.close(UNEXPLAINED, &[1, 2]);
    assert!(poison.is_trying(), "to send them one at a time does no harm");
    for _ in 0..10 {
        assert_eq!(poison.close(UNEXPLAINED, &[1]), None);
    }
    poison.canary_answered();
    assert_eq!(poison.close(UNEXPLAINED, &[1]), None);
    assert_eq!(poison.close(UNEXPLAINED, &[1]), None);
    assert_eq!(poison.close(UNEXPLAINED, &[1]), Some(Finding::Suspend(key(1))));
}

#[test]
fn a_record_that_was_not_in_flight_at_two_closes_in_a_row_is_not_tried() {
    let mut poison = plain();
    poison.close(UNEXPLAINED, &[1]);
    poison.forget(key(1));
    poison.close(UNEXPLAINED, &[2]);
    poison.close(UNEXPLAINED, &[]);
    poison.close(UNEXPLAINED, &[2]);
    assert!(!poison.is_trying());
}

#[test]
fn a_tried_record_that_is_gone_from_the_log_is_forgotten_when_the_reading_has_passed_it() {
    let mut poison = plain();
    let named = Close {
        blame: Some(Outcome::Denied),
        ..UNEXPLAINED
    };
    poison.closed(named, &[&item(3), &item(7), &item_of(1, 1)]);
    poison.passed(key(7));
    assert!(poison.is_trying(), "7 itself is still to be sent");
    poison.passed(key(8));
    assert!(poison.is_trying(), "another stream");
    poison.passed((StreamId(1), Offset(2)));
    assert!(!poison.is_trying());
}

#[test]
fn a_reason_that_the_peer_names_is_enough_when_alone_and_separates_many() {
    let named = |outcome| Close {
        blame: Some(outcome),
        ..UNEXPLAINED
    };
    let mut poison = plain();
    let wrong = named(Outcome::Wrong("packet-too-large"));
    assert_eq!(poison.close(wrong, &[7]), Some(Finding::DeadLetter(key(7), "packet-too-large")));
    assert_eq!(poison.close(named(Outcome::Denied), &[7]), Some(Finding::Suspend(key(7))));
    assert_eq!(poison.close(wrong, &[7, 8]), None);
    assert!(poison.is_trying());
    poison.nothing_left();
    assert!(!poison.is_trying());
    // What went at QoS 0 may be meant.
    let perhaps = Close {
        sent_unacked: true,
        ..wrong
    };
    assert_eq!(poison.close(perhaps, &[7]), None);
}

#[test]
fn a_probe_in_flight_is_the_likelier_reason() {
    let mut poison = plain();
    let mut probe = item(1);
    probe.probe = true;
    for _ in 0..5 {
        assert_eq!(poison.closed(UNEXPLAINED, &[&probe, &item(2)]), None);
    }
    assert!(!poison.is_trying());
}

#[test]
fn a_topic_that_the_cloud_took_before_is_not_denied() {
    let mut poison = plain();
    poison.accepted(&item(1).record);
    for _ in 0..4 {
        assert_eq!(poison.close(UNEXPLAINED, &[2]), None);
    }
    assert_eq!(poison.close(UNEXPLAINED, &[2]), Some(Finding::DeadLetter(key(2), "peer-closes")));
}

#[test]
fn without_a_canary_a_tried_record_goes_after_a_quiet_moment() {
    let mut poison = plain();
    let began = Instant::now();
    poison.close(UNEXPLAINED, &[1]);
    poison.close(UNEXPLAINED, &[1]);
    poison.began(began);
    let quiet = began + Config::mqtt("plant-7", "cloud.example").quiet_before_alone;
    assert_eq!(poison.turn(true, began), Turn::Wait(Some(quiet)));
    assert_eq!(poison.turn(true, quiet), Turn::Alone);
    assert_eq!(poison.turn(false, quiet), Turn::Wait(None));
}

#[test]
fn on_3_1_1_the_first_connection_begins_with_a_canary_and_over_5_none_goes_without_need() {
    let now = Instant::now();
    let mut first = Poison::new(&config(Version::V311, true), now);
    assert_eq!(first.turn(true, now), Turn::Canary);
    first.canary_sent();
    assert_eq!(first.turn(false, now), Turn::Wait(None));
    first.canary_answered();
    assert_eq!(first.turn(true, now), Turn::Many);
    first.began(now);
    assert_eq!(first.turn(true, now), Turn::Many, "it is known");
    assert_eq!(Poison::new(&config(Version::V5, true), now).turn(true, now), Turn::Many);
}

/// xorshift64*, so that a failure replays from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// A lane of one stream and its peer, as far as this search can tell.
struct World {
    seed: u64,
    random: Random,
    poison: Poison,
    now: Instant,
    /// What waits, in order.
    waiting: Vec<u64>,
    /// What makes the peer close.
    bad: HashSet<u64>,
    /// The peer takes nothing, or only no canary.
    closes_at: fn(&Item) -> bool,
    /// Closes and cuts that have another reason; fewer than would make a poison message.
    accidents: u32,
    found: HashSet<u64>,
    connections: u32,
}

impl World {
    fn new(seed: u64, version: Version, with_canary: bool, closes_at: fn(&Item) -> bool) -> Self {
        let mut random = Random(seed);
        let count = 1 + random.below(30);
        let bad = (0..random.below(5)).map(|_| random.below(count)).collect();
        let now = Instant::now();
        let mut poison = Poison::new(&config(version, with_canary), now);
        // The topic is known to be allowed, so that what is found becomes a dead letter.
        poison.accepted(&item(0).record);
        Self {
            seed,
            random,
            poison,
            now,
            waiting: (0..count).collect(),
            bad,
            closes_at,
            accidents: 2,
            found: HashSet::new(),
            connections: 0,
        }
    }

    /// One connection, up to its end. False when nothing waits any more.
    fn connection(&mut self, window: usize) -> bool {
        self.connections += 1;
        self.poison.began(self.now);
        let (mut in_flight, mut next) = (std::collections::VecDeque::new(), 0);
        loop {
            if in_flight.len() < window && self.random.one_in(2) {
                self.send(&mut in_flight, &mut next);
            } else if self.accidents > 0 && self.random.one_in(20) {
                self.accidents -= 1;
                let close = if self.random.one_in(2) { CUT } else { UNEXPLAINED };
                self.end(close, &in_flight);
                return true;
            } else if let Some(item) = in_flight.front() {
                let offset = item.record.offset.0;
                if (self.closes_at)(item) || !item.canary && self.bad.contains(&offset) {
                    self.end(UNEXPLAINED, &in_flight);
                    return true;
                }
                if item.canary {
                    self.poison.canary_answered();
                } else {
                    self.poison.accepted(&item.record);
                    self.settled(offset, &mut next);
                }
                in_flight.pop_front();
            } else if self.waiting.is_empty() {
                return false;
            }
        }
    }

    fn send(&mut self, in_flight: &mut std::collections::VecDeque<Item>, next: &mut usize) {
        match self.poison.turn(in_flight.is_empty(), self.now) {
            Turn::Canary => {
                assert!(in_flight.is_empty(), "seed {}", self.seed);
                self.poison.canary_sent();
                in_flight.push_back(canary().item());
            }
            turn @ (Turn::Many | Turn::Alone) => {
                let Some(offset) = self.waiting.get(*next) else {
                    return self.poison.nothing_left();
                };
                assert!(turn == Turn::Many || in_flight.is_empty(), "seed {}", self.seed);
                self.poison.passed(key(*offset));
                in_flight.push_back(item(*offset));
                *next += 1;
            }
            Turn::Wait(Some(at)) => self.now = at,
            Turn::Wait(None) => assert!(!in_flight.is_empty(), "seed {}: it waits for an answer to nothing", self.seed),
        }
    }

    fn end(&mut self, close: Close, in_flight: &std::collections::VecDeque<Item>) {
        match self.poison.closed(close, &in_flight.iter().collect::<Vec<_>>()) {
            Some(Finding::DeadLetter((_, Offset(found)), "peer-closes")) => {
                self.found.insert(found);
                self.settled(found, &mut 0);
            }
            None | Some(Finding::Canary) => {}
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    fn settled(&mut self, offset: u64, next: &mut usize) {
        self.waiting.retain(|waiting| *waiting != offset);
        *next = next.saturating_sub(1);
        self.poison.forget(key(offset));
    }
}

#[test]
fn in_any_order_of_events_the_poison_messages_are_found_and_no_others() {
    for seed in 1..=4000 {
        let version = if seed % 2 == 0 { Version::V5 } else { Version::V311 };
        let mut world = World::new(seed, version, seed % 3 != 0, |_| false);
        let window = 1 + world.random.below(10) as usize;
        // Two closes make it tried, three find it; accidents come on top, each of which may need a canary again.
        let most = 1 + 5 * world.bad.len() as u32 + 2 * world.accidents;
        while world.connection(window) {
            assert!(world.connections <= most, "seed {seed}: {} waiting, {most}", world.waiting.len());
        }
        assert_eq!(world.found, world.bad, "seed {seed}");
        assert_eq!(
            world.poison.turn(true, world.now + Duration::from_secs(60)),
            Turn::Many,
            "seed {seed}"
        );
    }
}

#[test]
fn a_canary_that_is_denied_alone_does_not_stop_the_search() {
    for seed in 1..=1000 {
        let mut world = World::new(seed, Version::V311, true, |item| item.canary);
        world.poison.canaries.other_acked();
        let most = 4 + 5 * world.bad.len() as u32 + 2 * world.accidents;
        while world.connection(8) {
            assert!(world.connections <= most, "seed {seed}: {} waiting", world.waiting.len());
        }
        assert_eq!(world.found, world.bad, "seed {seed}");
    }
}

#[test]
fn a_cloud_that_closes_at_everything_costs_no_record_anything() {
    for seed in 1..=1000 {
        let version = if seed % 2 == 0 { Version::V5 } else { Version::V311 };
        let mut world = World::new(seed, version, true, |_| true);
        // It took records before, and a canary.
        world.poison.canary_answered();
        let before = world.waiting.len();
        for _ in 0..40 {
            world.connection(8);
        }
        assert_eq!((world.waiting.len(), world.found.len()), (before, 0), "seed {seed}");
    }
}
