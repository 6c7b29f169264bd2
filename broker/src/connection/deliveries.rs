//! Messages from the fan-out to one peer: its subscriptions, and their PUBLISH packets.
//!
//! QoS 0 is granted (SUBACK says so): a message that a slow peer does not read in time is dropped and counted.

use std::collections::HashSet;
use std::sync::Arc;

use forebay_topic::TopicFilter;
use forebay_wal::Batch;

use super::outbox::Outbox;
use super::outgoing::{Outgoing, Receiver};
use crate::codec::Version;
use crate::context::Context;
use crate::fanout::{Message, NodeId, Origin, Recipient, TooManyFilters};
use crate::ingress::Ingress;
use crate::observe::add;
use crate::policy::Access;
use crate::session::SubscriptionOptions;

/// The reader's end. Dropping it ends the deliveries.
pub(super) struct Deliveries {
    recipient: Arc<dyn Recipient>,
    places: HashSet<NodeId>,
    context: Arc<Context>,
}

/// Receives messages from the fan-out.
struct Peer {
    context: Arc<Context>,
    outbox: Arc<Outbox>,
    receiver: Receiver,
    access: Access,
    origin: Origin,
}

impl Deliveries {
    pub(super) fn new(context: Arc<Context>, outbox: Arc<Outbox>, version: Version, ingress: &Ingress, peer_limit: Option<usize>) -> Self {
        let peer = Peer {
            context: Arc::clone(&context),
            outbox,
            receiver: Receiver { version, peer_limit },
            access: ingress.access.clone(),
            origin: ingress.origin,
        };
        Self {
            recipient: Arc::new(peer),
            places: HashSet::new(),
            context,
        }
    }

    /// Subscribes, or changes the options of a subscription that exists (MQTT-3.8.4-3). Messages flow once this
    /// returns, except those of batch `after` and before.
    pub(super) fn subscribe(&mut self, filter: &TopicFilter, options: SubscriptionOptions, after: Batch) -> Result<(), TooManyFilters> {
        let place = self.context.fanout.subscribe(filter, &self.recipient, options, after)?;
        self.places.extend(place);
        Ok(())
    }

    /// Unsubscribes; false if there was no such subscription.
    pub(super) fn unsubscribe(&mut self, filter: &str) -> bool {
        let place = self.context.fanout.place(filter).filter(|place| self.places.remove(place));
        place.is_some_and(|place| self.context.fanout.unsubscribe(place, &self.recipient))
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        for place in self.places.drain() {
            self.context.fanout.unsubscribe(place, &self.recipient);
        }
    }
}

impl Recipient for Peer {
    /// One copy, whatever the number of subscriptions that match (MQTT 5, 3.3.4), with the ids of all of them (MQTT-3.3.4-4).
    fn deliver(&self, message: &Message, subscriptions: &[SubscriptionOptions]) {
        let is_own = message.origin == self.origin;
        let wanted = || subscriptions.iter().filter(|options| !(options.no_local && is_own));
        if wanted().next().is_none() {
            return;
        }
        let Ok(topic) = std::str::from_utf8(&message.topic) else { return };
        if !self.access.may_receive(topic) {
            return;
        }
        let outgoing = Outgoing {
            topic: &message.topic,
            retain: message.retain && wanted().any(|options| options.retain_as_published),
            expiry: message.expiry,
            properties: &message.properties,
            payload: &message.payload,
        };
        let ids: Vec<_> = wanted().filter_map(SubscriptionOptions::id).collect();
        let mut is_written = true;
        let is_taken = self.outbox.deliver(|out| is_written = self.receiver.write(&outgoing, &ids, out));
        let counter = if is_taken && is_written {
            &self.context.stats.fanned_out
        } else {
            &self.context.stats.fanout_dropped
        };
        add(counter, 1);
    }
}
