//! A session's deliveries over a connection that is as the test says.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::budget::{Budget, Owner};
use crate::codec::{QoS, ReasonCode};
use crate::fanout::{Message, Origin};
use crate::limits::Limits;
use crate::observe::{DroppedOwed, Stats};

/// A connection that notes what it is given: id, payload, seconds left.
#[derive(Default)]
struct Noted {
    is_full: Cell<bool>,
    /// It has room again once it was asked.
    is_full_once: Cell<bool>,
    sent: RefCell<Vec<(u16, String, Option<u32>)>>,
}

impl Wire for Noted {
    fn has_room(&self) -> bool {
        !self.is_full.get() && !self.is_full_once.take()
    }

    fn fits(&self, owed: &Owed) -> bool {
        owed.message.payload.len() < 1_000_000
    }

    fn send(&self, id: NonZeroU16, owed: &Owed, expiry: Option<u32>, is_current: &dyn Fn() -> bool) -> bool {
        let payload = String::from_utf8_lossy(&owed.message.payload).into_owned();
        let is_sent = is_current();
        if is_sent {
            self.sent.borrow_mut().push((id.get(), payload, expiry));
        }
        is_sent
    }
}

impl Noted {
    fn take(&self) -> Vec<String> {
        self.sent.take().into_iter().map(|(_, payload, _)| payload).collect()
    }
}

struct Session {
    delivery: SessionDelivery,
    wire: Noted,
    stats: Arc<Stats>,
    budget: Budget,
    began: Instant,
}

impl Session {
    fn new(window: u16, limits: &Limits) -> Self {
        let (stats, budget) = (Arc::<Stats>::default(), Budget::new(limits));
        let charge = budget.owed_bytes.open(Owner::Identity("d".into()));
        Self {
            delivery: SessionDelivery::new(window, charge, limits.max_session_bytes, Arc::clone(&stats)),
            wire: Noted::default(),
            stats,
            budget,
            began: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.began + Duration::from_secs(seconds)
    }

    fn owe(&self, payload: &str, expiry: Option<u32>) {
        self.delivery.owe(self.owed(payload, expiry), &self.wire, self.began);
    }

    fn owed(&self, payload: &str, expiry: Option<u32>) -> Owed {
        let message = Message {
            topic: Bytes::from_static(b"t"),
            origin: Origin::UNKNOWN,
            qos: 1,
            retain: false,
            expiry,
            properties: Bytes::new(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        Owed {
            message: Arc::new(message),
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: Vec::new(),
            since: self.began,
        }
    }

    fn ack(&self, id: u16, seconds: u64) {
        let id = NonZeroU16::new(id).unwrap();
        self.delivery.acked(id, ReasonCode::SUCCESS, &self.wire, self.at(seconds));
    }

    fn dropped(&self, reason: DroppedOwed) -> u64 {
        self.stats.owed_dropped(reason)
    }

    fn waiting(&self) -> u64 {
        self.stats.owed_waiting.load(Ordering::Relaxed)
    }
}

#[test]
fn d5_the_time_that_a_message_waits_is_taken_from_its_expiry_and_one_that_is_over_is_not_sent() {
    let session = Session::new(1, &Limits::default());
    for (payload, expiry) in [
        ("first", Some(60)),
        ("counts", Some(60)),
        ("over", Some(20)),
        ("zero", Some(0)),
        ("none", None),
    ] {
        session.owe(payload, expiry);
    }
    session.ack(1, 20);
    session.ack(2, 21);
    let sent = session.wire.sent.take();
    let left: Vec<_> = sent.iter().map(|(_, payload, left)| (payload.as_str(), *left)).collect();
    assert_eq!(left, [("first", Some(60)), ("counts", Some(40)), ("none", None)]);
    assert_eq!(session.dropped(DroppedOwed::MessageExpiry), 2);
    assert_eq!(session.waiting(), 1);
}

#[test]
fn what_comes_later_never_goes_first_and_the_reader_is_woken_when_only_the_connection_is_full() {
    let session = Session::new(3, &Limits::default());
    session.wire.is_full.set(true);
    session.owe("1", None);
    assert!(session.delivery.wants_room());
    session.wire.is_full.set(false);
    session.owe("2", None);
    assert_eq!(session.wire.take(), [""; 0], "it waits for its turn");
    session.delivery.resume(&session.wire, session.began);
    assert!(!session.delivery.wants_room());
    session.owe("3", None);
    session.owe("4", None);
    assert_eq!(session.wire.take(), ["1", "2", "3"]);
    session.wire.is_full.set(true);
    assert!(!session.delivery.wants_room(), "it waits for an answer");
    session.ack(2, 0);
    assert!(session.delivery.wants_room() && session.wire.take().is_empty());
    session.wire.is_full.set(false);
    session.delivery.resume(&session.wire, session.began);
    assert_eq!(session.wire.take(), ["4"]);
}

#[test]
fn room_that_comes_while_it_is_looked_for_is_not_missed() {
    let session = Session::new(3, &Limits::default());
    session.wire.is_full_once.set(true);
    session.owe("1", None);
    assert!(session.delivery.wants_room(), "there is room by now, and nothing tells of it");
    session.delivery.resume(&session.wire, session.began);
    assert_eq!(session.wire.take(), ["1"]);
    assert!(!session.delivery.wants_room());
}

#[test]
fn what_need_not_be_kept_goes_only_when_nothing_waits_and_while_it_is_current() {
    let session = Session::new(2, &Limits::default());
    let offer = |is_current: bool| {
        let owed = session.owed("retained", None);
        session.delivery.offer(&owed, &session.wire, &|| is_current, session.began)
    };
    assert_eq!((offer(false), session.waiting()), (Offered::Stale, 0));
    assert_eq!((offer(true), session.delivery.free(&session.wire)), (Offered::Done, 1));
    session.owe("1", None);
    session.owe("2", None);
    assert_eq!((offer(true), session.delivery.free(&session.wire)), (Offered::NoRoom, 0));
    session.ack(1, 0);
    assert_eq!(offer(true), Offered::NoRoom, "`2` went first");
    assert_eq!(session.wire.take(), ["retained", "1", "2"]);
    assert_eq!(session.waiting(), 2);
}

#[test]
fn at_each_bound_the_oldest_that_waits_is_dropped_with_its_reason_and_what_never_fits_drops_nothing_else() {
    let payload = "x".repeat(30_000);
    let limits = |per_session, whole| Limits {
        max_session_bytes: per_session,
        max_owed_bytes: whole,
        ..Limits::default()
    };
    for (limits, reason, name) in [
        (limits(100_000, 8 << 20), DroppedOwed::SessionBound, "of the session"),
        (limits(8 << 20, 8 << 20), DroppedOwed::SessionBound, "of the identity"),
    ] {
        let session = Session::new(1, &limits);
        for number in 0..100 {
            session.owe(&format!("{number} {payload}"), None);
        }
        let dropped = session.dropped(reason);
        assert!(dropped > 50 && session.waiting() == 100 - dropped, "{name}: {dropped}");
        assert!(session.budget.owed_bytes.taken() <= session.budget.owed_bytes.whole());
        session.owe(&"y".repeat(2_000_000), None);
        assert_eq!(session.dropped(reason), dropped + 1, "{name}");
        // The first is in flight.
        for id in 1..100 - dropped {
            session.ack(id as u16, 0);
        }
        let sent = session.wire.take();
        let last = sent.last().unwrap();
        assert!(
            last.starts_with("99 ") && sent[1].starts_with(&format!("{} ", dropped + 1)),
            "{name}"
        );
        session.delivery.end();
        assert_eq!((session.waiting(), session.budget.owed_bytes.taken()), (0, 0), "{name}");
    }
    // What others have taken is not there for this one.
    let session = Session::new(1, &limits(1 << 20, 400_000));
    let others: Vec<_> = (0..10)
        .map(|other| {
            let mut charge = session.budget.owed_bytes.open(Owner::Identity(format!("o{other}").into()));
            charge.force(36_000);
            charge
        })
        .collect();
    for number in 0..100 {
        session.owe(&format!("{number} {payload}"), None);
    }
    assert!(session.dropped(DroppedOwed::AllSessionsBound) > 90);
    drop(others);
    session.owe("the last", None);
    session.ack(1, 0);
    assert_eq!(session.wire.take().len(), 2);
}

#[test]
fn many_small_messages_are_charged_and_all_is_given_back_step_by_step() {
    let session = Session::new(5, &Limits::default());
    for number in 0..2_000 {
        session.owe(&number.to_string(), None);
    }
    let most = session.budget.owed_bytes.taken();
    assert!((300_000..600_000).contains(&most), "{most}");
    let mut before = most;
    for round in 0..2_000_u64 {
        session.ack((round + 1) as u16, 0);
        let taken = session.budget.owed_bytes.taken();
        assert!(taken <= before);
        before = taken;
    }
    assert_eq!((before, session.waiting()), (0, 0));
    assert_eq!(session.stats.owed_acked.load(Ordering::Relaxed), 2_000);
}

#[test]
fn a_session_that_has_ended_is_owed_nothing_more() {
    let session = Session::new(1, &Limits::default());
    session.owe("1", None);
    session.owe("2", None);
    session.delivery.end();
    session.owe("3", None);
    assert_eq!(session.dropped(DroppedOwed::SessionEnd), 2);
    assert_eq!((session.waiting(), session.stats.owed.load(Ordering::Relaxed)), (0, 2));
    session.ack(1, 0);
    assert_eq!(session.wire.take(), ["1"]);
}
