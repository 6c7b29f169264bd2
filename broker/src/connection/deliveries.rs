//! Messages to one peer: its subscriptions, and their PUBLISH packets.
//!
//! At QoS 0 a message that a slow peer does not read in time is dropped and counted. At QoS 1 and 2 it waits in the session's
//! [`SessionDelivery`].

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use forebay_topic::TopicFilter;
use forebay_wal::Batch;

use super::connect::Open;
use super::outbox::Outbox;
use super::outgoing::{Outgoing, Receiver};
use crate::budget::Owner;
use crate::codec::{QoS, ReasonCode};
use crate::context::Context;
use crate::delivery::{Group, Member, NotJoined, Offered, Overdue, Owed, Received, SessionDelivery, Share, Shared, Wire};
use crate::fanout::{Message, NodeId, Origin, Recipient, TooManyFilters};
use crate::observe::{Stats, add};
use crate::policy::Access;
use crate::session::SubscriptionOptions;

/// The reader's end. Dropping it ends the deliveries.
pub(super) struct Deliveries {
    peer: Arc<Peer>,
    recipient: Arc<dyn Recipient>,
    /// The same among the members of groups.
    member: Arc<dyn Member>,
    owner: Owner,
    places: HashSet<NodeId>,
    context: Arc<Context>,
    /// The highest QoS that is granted.
    max_qos: u8,
    /// A subscription was granted QoS 1 or 2.
    may_owe: bool,
}

/// Receives messages from the fan-out.
struct Peer {
    line: Line,
    owed: SessionDelivery,
    origin: Origin,
}

/// The connection, and what it may get.
struct Line {
    outbox: Arc<Outbox>,
    receiver: Receiver,
    access: Access,
    /// The groups that it is a member of; the one whose turn it is next is first.
    groups: Mutex<Vec<Membership>>,
    stats: Arc<Stats>,
}

struct Membership {
    /// What follows `$share/`.
    key: String,
    group: Arc<Group>,
    options: SubscriptionOptions,
}

impl Deliveries {
    pub(super) fn new(context: Arc<Context>, open: &Open) -> Self {
        let charge = context.budget.owed_bytes.open(open.owner.clone());
        let stats = Arc::clone(&context.stats);
        let peer = Arc::new(Peer {
            line: Line {
                outbox: Arc::clone(&open.outbox),
                receiver: open.receiver,
                access: open.ingress.access.clone(),
                groups: Mutex::default(),
                stats: Arc::clone(&stats),
            },
            owed: SessionDelivery::new(open.window, charge, context.limits.max_session_bytes, stats),
            origin: open.ingress.origin,
        });
        Self {
            recipient: Arc::clone(&peer) as _,
            member: Arc::clone(&peer) as _,
            peer,
            owner: open.owner.clone(),
            places: HashSet::new(),
            context,
            // What a session is owed is in memory: one that outlives its connection would be promised more than is kept.
            may_owe: false,
            max_qos: if open.attached.state.is_persistent { 0 } else { 2 },
        }
    }

    /// What is granted to a subscription that asks for this.
    pub(super) fn granted(&self, options: SubscriptionOptions) -> SubscriptionOptions {
        SubscriptionOptions {
            qos: options.qos.min(self.max_qos),
            ..options
        }
    }

    /// Subscribes, or changes the options of a subscription that exists (MQTT-3.8.4-3). Messages flow once this
    /// returns, except those of batch `after` and before.
    pub(super) fn subscribe(&mut self, filter: &TopicFilter, options: SubscriptionOptions, after: Batch) -> Result<(), TooManyFilters> {
        let place = self.context.fanout.subscribe(filter, &self.recipient, options, after)?;
        self.places.extend(place);
        self.may_owe |= options.qos > 0;
        Ok(())
    }

    /// Becomes a member of a group, or changes the options of a membership. What waits there comes with [`Deliveries::resume`].
    pub(super) fn share(&mut self, share: &Share<'_>, options: SubscriptionOptions, after: Batch) -> Result<(), NotJoined> {
        let Context { groups, fanout, .. } = &*self.context;
        let group = groups.join(share, &self.member, options, self.owner.clone(), (fanout, after))?;
        let mut own = self.peer.line.groups();
        match own.iter_mut().find(|known| known.key == share.key) {
            Some(known) => known.options = options,
            None => own.push(Membership {
                key: share.key.to_owned(),
                group,
                options,
            }),
        }
        drop(own);
        self.may_owe |= options.qos > 0;
        Ok(())
    }

    /// Ends a membership. What is in flight stays so.
    pub(super) fn unshare(&self, key: &str) {
        self.peer.line.groups().retain(|known| known.key != key);
        self.context.groups.leave(key, &self.member, &self.context.fanout);
    }

    /// Unsubscribes; false if there was no such subscription.
    pub(super) fn unsubscribe(&mut self, filter: &str) -> bool {
        let place = self.context.fanout.place(filter).filter(|place| self.places.remove(place));
        place.is_some_and(|place| self.context.fanout.unsubscribe(place, &self.recipient))
    }

    /// Whether anything may be owed to the session.
    pub(super) fn may_owe(&self) -> bool {
        self.may_owe
    }

    /// The peer's PUBACK.
    pub(super) fn acked(&self, id: NonZeroU16, reason: ReasonCode) {
        self.peer.owed.acked(id, reason, &self.peer.line, Instant::now());
    }

    /// The peer's PUBREC.
    pub(super) fn received(&self, id: NonZeroU16, reason: ReasonCode) -> Received {
        self.peer.owed.received(id, reason, &self.peer.line, Instant::now())
    }

    /// The peer's PUBCOMP.
    pub(super) fn completed(&self, id: NonZeroU16) {
        self.peer.owed.completed(id, &self.peer.line, Instant::now());
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn resume(&self) {
        self.peer.owed.resume(&self.peer.line, Instant::now());
    }

    /// Whether [`Deliveries::resume`] is due once the outbox has room.
    pub(super) fn wants_room(&self) -> bool {
        self.peer.owed.wants_room()
    }

    /// Waits until [`Deliveries::wants_room`] may have become true. Cancel safe.
    pub(super) async fn woken(&self) {
        self.peer.owed.woken().await;
    }

    /// A publish that the peer has not answered in time.
    pub(super) fn overdue(&self) -> Option<Overdue> {
        self.peer.owed.overdue(Instant::now(), self.context.limits.ack_timeout)
    }

    /// How many messages [`Deliveries::offer`] would take now.
    pub(super) fn free(&self) -> usize {
        self.peer.owed.free(&self.peer.line)
    }

    /// Sends this message if there is room, and if it is still current then.
    pub(super) fn offer(&self, owed: &Owed, is_current: &dyn Fn() -> bool) -> Offered {
        self.peer.owed.offer(owed, &self.peer.line, is_current, Instant::now())
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        for place in self.places.drain() {
            self.context.fanout.unsubscribe(place, &self.recipient);
        }
        // Before its deliveries end, so that it gets none of them back.
        let memberships = std::mem::take(&mut *self.peer.line.groups());
        for Membership { key, .. } in memberships {
            self.context.groups.leave(&key, &self.member, &self.context.fanout);
        }
        self.peer.owed.end();
    }
}

/// Of the subscriptions that match, those that want the message, put together.
struct Wanted {
    qos: u8,
    retain: bool,
    ids: Vec<NonZeroU32>,
}

impl Peer {
    /// One copy, whatever the number of subscriptions that match, at the highest QoS of them (MQTT-3.3.4-2), with the ids of all
    /// (MQTT-3.3.4-4). `None` if none wants it, or the peer may not have it.
    fn wanted(&self, message: &Message, subscriptions: &[SubscriptionOptions]) -> Option<Wanted> {
        let is_own = message.origin == self.origin;
        let wanted = || subscriptions.iter().filter(|options| !(options.no_local && is_own));
        let qos = wanted().map(|options| options.qos).max()?;
        let topic = std::str::from_utf8(&message.topic).ok()?;
        self.line.access.may_receive(topic).then(|| Wanted {
            qos: qos.min(message.qos),
            retain: message.retain && wanted().any(|options| options.retain_as_published),
            ids: wanted().filter_map(SubscriptionOptions::id).collect(),
        })
    }

    fn deliver_at_0(&self, message: &Message, wanted: &Wanted) {
        let outgoing = Outgoing {
            retain: wanted.retain,
            ..Outgoing::of(message, message.expiry)
        };
        let receiver = self.line.receiver;
        if !receiver.fits(&outgoing, &wanted.ids) {
            return add(&self.line.stats.fanout_dropped, 1);
        }
        let mut is_written = true;
        let is_taken = self
            .line
            .outbox
            .deliver(|aliases, out| is_written = receiver.write(&outgoing, &wanted.ids, aliases, out));
        let stats = &self.line.stats;
        let counter = if is_taken && is_written {
            add(&stats.payload_bytes_sent, message.payload.len() as u64);
            &stats.fanned_out
        } else {
            &stats.fanout_dropped
        };
        add(counter, 1);
    }
}

impl Recipient for Peer {
    fn deliver(&self, message: &Message, subscriptions: &[SubscriptionOptions]) {
        if let Some(wanted) = self.wanted(message, subscriptions) {
            self.deliver_at_0(message, &wanted);
        }
    }

    fn owe(&self, message: &Arc<Message>, subscriptions: &[SubscriptionOptions]) {
        let Some(wanted) = self.wanted(message, subscriptions) else {
            return;
        };
        let Some(qos) = QoS::from_level(wanted.qos).filter(|qos| *qos != QoS::AtMostOnce) else {
            // No Local keeps it from the subscription that would get it at a higher QoS.
            return self.deliver_at_0(message, &wanted);
        };
        let now = Instant::now();
        let owed = Owed {
            message: Arc::clone(message),
            qos,
            retain: wanted.retain,
            subscription_ids: wanted.ids,
            since: now,
        };
        self.owed.owe(owed, &self.line, now);
    }
}

impl Member for Peer {
    fn load(&self) -> usize {
        self.owed.load()
    }

    fn may_have(&self, message: &Message) -> bool {
        self.line.may_have(message)
    }

    fn takes(&self, message: &Message, options: SubscriptionOptions) -> bool {
        self.line.takes(message, options)
    }

    fn has_room(&self) -> bool {
        self.line.has_room()
    }

    fn owe_shared(&self, message: &Shared, options: SubscriptionOptions, group: &Arc<Group>) -> bool {
        let Some(owed) = shared_owed(message, options) else {
            let has_room = self.line.has_room();
            if has_room {
                self.deliver(&message.message, &[options]);
            }
            return has_room;
        };
        self.owed.owe_shared(&owed, group, &self.line, Instant::now())
    }

    fn look(&self) {
        self.owed.resume(&self.line, Instant::now());
    }
}

/// The message as a member of its group with these options is owed it; `None` if at QoS 0.
fn shared_owed(shared: &Shared, options: SubscriptionOptions) -> Option<Owed> {
    let message = Arc::clone(&shared.message);
    let qos = QoS::from_level(options.qos.min(message.qos)).filter(|qos| *qos != QoS::AtMostOnce)?;
    Some(Owed {
        qos,
        retain: message.retain && options.retain_as_published,
        subscription_ids: options.id().into_iter().collect(),
        since: shared.since,
        message,
    })
}

impl Line {
    fn may_have(&self, message: &Message) -> bool {
        std::str::from_utf8(&message.topic).is_ok_and(|topic| self.access.may_receive(topic))
    }

    fn takes(&self, message: &Message, options: SubscriptionOptions) -> bool {
        let longest = Outgoing {
            qos: QoS::AtLeastOnce,
            packet_id: Some(NonZeroU16::MIN),
            ..Outgoing::of(message, message.expiry)
        };
        self.may_have(message) && self.receiver.fits(&longest, options.id().as_slice())
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Membership>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire for Line {
    fn next_shared(&self) -> Option<(Owed, Arc<Group>)> {
        let mut groups = self.groups();
        for nth in 0..groups.len() {
            let Membership { group, options, .. } = &groups[nth];
            let options = *options;
            if options.qos > 0
                && let Some(shared) = group.next(|message| self.takes(message, options))
            {
                let group = Arc::clone(group);
                groups.rotate_left(nth + 1);
                return Some((shared_owed(&shared, options)?, group));
            }
        }
        None
    }

    fn has_shared(&self) -> bool {
        let groups = self.groups();
        groups.iter().any(|known| known.options.qos > 0 && known.group.has_waiting())
    }

    fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    fn fits(&self, owed: &Owed) -> bool {
        // The id is as long as any.
        self.receiver
            .fits(&outgoing(owed, NonZeroU16::MIN, owed.message.expiry), &owed.subscription_ids)
    }

    fn send(&self, id: NonZeroU16, owed: &Owed, expiry: Option<u32>, is_current: &dyn Fn() -> bool) -> bool {
        let outgoing = outgoing(owed, id, expiry);
        let mut is_written = true;
        let is_sent = self.outbox.deliver_if(is_current, |aliases, out| {
            is_written = self.receiver.write(&outgoing, &owed.subscription_ids, aliases, out);
        });
        // Topic and ids came in a packet that was decoded, so they can be encoded.
        debug_assert!(is_written, "{:?}", owed.message.topic);
        if is_sent {
            add(&self.stats.fanned_out, 1);
            add(&self.stats.payload_bytes_sent, owed.message.payload.len() as u64);
        }
        is_sent
    }
}

fn outgoing(owed: &Owed, id: NonZeroU16, expiry: Option<u32>) -> Outgoing<'_> {
    Outgoing {
        qos: owed.qos,
        packet_id: Some(id),
        retain: owed.retain,
        ..Outgoing::of(&owed.message, expiry)
    }
}
