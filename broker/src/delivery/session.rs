//! The deliveries of one session over one connection. The fan-out gives it messages, the connection's reader the peer's answers.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::group::Group;
use super::owed::{Owed, Shared};
use super::room::{Room, Waits as _};
use super::window::{Received, Window};
use crate::budget::Charge;
use crate::codec::{QoS, ReasonCode};
use crate::observe::{DroppedOwed, Stats, add, sub};

/// The connection.
pub(crate) trait Wire {
    /// Whether the peer has read so much that it may get more.
    fn has_room(&self) -> bool;

    /// Whether the peer takes a packet of this size (MQTT-3.1.2-24).
    fn fits(&self, owed: &Owed) -> bool;

    /// Sends the message with these seconds left, if `is_current`; returns whether it is sent. No other delivery comes between the
    /// check and the message.
    fn send(&self, id: NonZeroU16, owed: &Owed, expiry: Option<u32>, is_current: &dyn Fn() -> bool) -> bool;

    /// What waits in the groups of the session, the oldest of each in turn.
    fn next_shared(&self) -> Option<(Owed, Arc<Group>)> {
        None
    }

    /// Whether something waits there.
    fn has_shared(&self) -> bool {
        false
    }
}

/// What a session is owed.
pub(crate) struct SessionDelivery {
    state: Mutex<State>,
    stats: Arc<Stats>,
    /// How many wait or are in flight, readable without the lock.
    load: AtomicUsize,
    /// Messages wait for the connection to have room, and for nothing else.
    wants_room: AtomicBool,
    /// Notified when that begins.
    wake: Notify,
}

struct State {
    window: Window,
    room: Room<Owed>,
    /// What is in flight at QoS 1 for a group, the oldest first.
    kept: VecDeque<Kept>,
    is_over: bool,
}

/// A message that another member of its group gets if this session ends before its answer.
struct Kept {
    id: NonZeroU16,
    shared: Shared,
    group: Arc<Group>,
}

/// What became of a message that need not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is sent, or it never will be: it is too large.
    Done,
    /// There is a newer one.
    Stale,
    /// Nothing more can be sent now.
    NoRoom,
}

/// A publish whose answer does not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) packet_id: NonZeroU16,
    /// The beginning of its topic.
    pub(crate) topic: String,
}

impl SessionDelivery {
    /// At most `window` publishes are in flight, and at most `max_bytes` wait, within `charge`.
    pub(crate) fn new(window: u16, charge: Charge, max_bytes: u64, stats: Arc<Stats>) -> Self {
        let state = State {
            window: Window::new(window),
            room: Room::new(charge, max_bytes),
            kept: VecDeque::new(),
            is_over: false,
        };
        Self {
            state: Mutex::new(state),
            stats,
            load: AtomicUsize::new(0),
            wants_room: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Takes a message, and sends it at once if nothing else waits and there is room.
    pub(crate) fn owe(&self, owed: Owed, wire: &impl Wire, now: Instant) {
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        self.count_owed();
        if state.room.len() > 0 || !may_send(&state, wire) || !state.room.begin(0) {
            state.room.push(owed, |reason| self.dropped(reason));
            self.note_wants(&state, wire);
        } else {
            self.send_owed(&mut state, &owed, wire, now);
        }
    }

    /// Takes a message of a group if it can be sent at once; false if it cannot.
    pub(crate) fn owe_shared(&self, owed: &Owed, group: &Arc<Group>, wire: &impl Wire, now: Instant) -> bool {
        let mut state = self.lock();
        if state.is_over || state.room.len() > 0 || !may_send(&state, wire) || !state.room.begin(kept_bytes(owed)) {
            return false;
        }
        self.count_owed();
        self.send_shared(&mut state, owed, group, wire, now);
        true
    }

    /// How many messages wait or are in flight.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// How many messages [`SessionDelivery::offer`] would take now.
    pub(crate) fn free(&self, wire: &impl Wire) -> usize {
        let state = self.lock();
        if state.room.len() > 0 || !wire.has_room() {
            return 0;
        }
        state.window.room()
    }

    /// Sends a message that need not be kept here until there is room, if it is still `is_current` then.
    pub(crate) fn offer(&self, owed: &Owed, wire: &impl Wire, is_current: &dyn Fn() -> bool, now: Instant) -> Offered {
        let mut state = self.lock();
        if state.is_over || state.room.len() > 0 || !may_send(&state, wire) || !state.room.begin(0) {
            return Offered::NoRoom;
        }
        let sent = send(&mut state, owed, wire, is_current, now);
        if sent.is_err() {
            state.room.end(0);
        }
        if sent == Err(Unsent::Stale) {
            return Offered::Stale;
        }
        self.count_owed();
        if let Err(Unsent::Never(reason)) = sent {
            self.dropped(reason);
        }
        Offered::Done
    }

    /// PUBACK of the peer. One for an id that is not in flight says nothing.
    pub(crate) fn acked(&self, id: NonZeroU16, reason: ReasonCode, wire: &impl Wire, now: Instant) {
        let mut state = self.lock();
        if state.window.acked(id) {
            self.ended(&mut state, id, reason);
            self.pump(&mut state, wire, now);
        }
    }

    /// PUBREC of the peer.
    pub(crate) fn received(&self, id: NonZeroU16, reason: ReasonCode, wire: &impl Wire, now: Instant) -> Received {
        let mut state = self.lock();
        let received = state.window.received(id, reason.is_error(), now);
        if received == Received::Refused {
            self.ended(&mut state, id, reason);
            self.pump(&mut state, wire, now);
        }
        received
    }

    /// PUBCOMP of the peer.
    pub(crate) fn completed(&self, id: NonZeroU16, wire: &impl Wire, now: Instant) {
        let mut state = self.lock();
        if state.window.completed(id) {
            // Whatever its code: the peer has had the message since its PUBREC.
            self.ended(&mut state, id, ReasonCode::SUCCESS);
            self.pump(&mut state, wire, now);
        }
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn resume(&self, wire: &impl Wire, now: Instant) {
        self.pump(&mut self.lock(), wire, now);
    }

    /// Whether [`SessionDelivery::resume`] is due once the connection has room.
    pub(crate) fn wants_room(&self) -> bool {
        self.wants_room.load(Ordering::Acquire)
    }

    /// Waits until [`SessionDelivery::wants_room`] may have become true. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The publish that has waited for its answer for longest, if that is longer than `limit`.
    pub(crate) fn overdue(&self, now: Instant, limit: Duration) -> Option<Overdue> {
        let state = self.lock();
        let (packet_id, topic) = state.window.overdue(now, limit)?;
        let topic = topic.to_owned();
        Some(Overdue { packet_id, topic })
    }

    /// The session has ended: it is owed nothing any more. What a group may give to others goes back to it.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        while state.room.pop().is_some() {
            self.dropped(DroppedOwed::SessionEnd);
        }
        let kept = std::mem::take(&mut state.kept);
        for _ in kept.len()..state.window.len() {
            state.room.end(0);
            self.dropped(DroppedOwed::SessionEnd);
        }
        for kept in &kept {
            state.room.end(kept.shared.bytes());
        }
        state.window = Window::new(0);
        // Others are called then, so not under the lock.
        drop(state);
        put_back(kept);
    }

    fn pump(&self, state: &mut State, wire: &impl Wire, now: Instant) {
        while may_send(state, wire) {
            if let Some(owed) = state.room.pop_for_flight() {
                self.send_owed(state, &owed, wire, now);
            } else if !self.send_next_shared(state, wire, now) {
                break;
            }
        }
        self.note_wants(state, wire);
    }

    /// False if there is none, or no room for it.
    fn send_next_shared(&self, state: &mut State, wire: &impl Wire, now: Instant) -> bool {
        let Some((owed, group)) = wire.next_shared() else {
            return false;
        };
        if !state.room.begin(kept_bytes(&owed)) {
            group.undo(owed.shared());
            return false;
        }
        self.load.fetch_add(1, Ordering::Relaxed);
        self.send_shared(state, &owed, &group, wire, now);
        true
    }

    fn send_owed(&self, state: &mut State, owed: &Owed, wire: &impl Wire, now: Instant) {
        if let Err(Unsent::Never(reason)) = send(state, owed, wire, &|| true, now) {
            state.room.end(0);
            self.dropped(reason);
        }
    }

    fn send_shared(&self, state: &mut State, owed: &Owed, group: &Arc<Group>, wire: &impl Wire, now: Instant) {
        match send(state, owed, wire, &|| true, now) {
            Ok(id) if owed.qos == QoS::AtLeastOnce => state.kept.push_back(Kept {
                id,
                shared: owed.shared(),
                group: Arc::clone(group),
            }),
            Ok(_) => {}
            Err(Unsent::Never(reason)) => {
                state.room.end(kept_bytes(owed));
                self.dropped(reason);
            }
            Err(Unsent::Stale) => state.room.end(kept_bytes(owed)),
        }
    }

    /// Called where what waits could not be sent. The connection is not asked again: it may have got room since, and would not tell.
    fn note_wants(&self, state: &State, wire: &impl Wire) {
        let wants = state.window.room() > 0 && !state.is_over && (state.room.len() > 0 || wire.has_shared());
        if !self.wants_room.swap(wants, Ordering::AcqRel) && wants {
            self.wake.notify_one();
        }
    }

    /// An id is done.
    fn ended(&self, state: &mut State, id: NonZeroU16, reason: ReasonCode) {
        let kept = state.kept.iter().position(|kept| kept.id == id);
        let kept = kept.and_then(|place| state.kept.remove(place));
        state.room.end(kept.map_or(0, |kept| kept.shared.bytes()));
        if reason.is_error() {
            self.dropped(DroppedOwed::Refused);
        } else {
            self.load.fetch_sub(1, Ordering::Relaxed);
            sub(&self.stats.owed_waiting, 1);
            add(&self.stats.owed_acked, 1);
        }
    }

    fn count_owed(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
        add(&self.stats.owed, 1);
        add(&self.stats.owed_waiting, 1);
    }

    fn dropped(&self, reason: DroppedOwed) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        sub(&self.stats.owed_waiting, 1);
        self.stats.drop_owed(reason);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a message is not sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsent {
    /// It is not current any more.
    Stale,
    /// It never will be.
    Never(DroppedOwed),
}

fn may_send(state: &State, wire: &impl Wire) -> bool {
    state.window.room() > 0 && wire.has_room()
}

/// What of it is kept while it is in flight, if it is a group's.
fn kept_bytes(owed: &Owed) -> u64 {
    if owed.qos == QoS::AtLeastOnce { owed.shared().bytes() } else { 0 }
}

/// Gives each group what is its own, in order.
fn put_back(kept: VecDeque<Kept>) {
    let mut by_group: Vec<(Arc<Group>, Vec<Shared>)> = Vec::new();
    for Kept { shared, group, .. } in kept {
        match by_group.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &group)) {
            Some((_, all)) => all.push(shared),
            None => by_group.push((group, vec![shared])),
        }
    }
    for (group, unanswered) in by_group {
        group.put_back(unanswered);
    }
}

/// Sends a message whose place in flight is taken already, and returns its packet id.
fn send(state: &mut State, owed: &Owed, wire: &impl Wire, is_current: &dyn Fn() -> bool, now: Instant) -> Result<NonZeroU16, Unsent> {
    let id = state.window.free_id();
    let sent = match owed.left(now) {
        Err(_) => Err(Unsent::Never(DroppedOwed::MessageExpiry)),
        // It counts as delivered to this peer (MQTT-3.1.2-25).
        Ok(_) if !wire.fits(owed) => Err(Unsent::Never(DroppedOwed::TooLarge)),
        Ok(expiry) if wire.send(id, owed, expiry, is_current) => Ok(()),
        Ok(_) => Err(Unsent::Stale),
    };
    sent.map(|()| {
        state.window.begin(id, owed.qos, &owed.message.topic, now);
        id
    })
}
