//! Messages from the fan-out to one peer: its subscriptions, and the PUBLISH packets that come of them.
//!
//! What is granted is QoS 0 (SUBACK says so): a message that a slow peer does not read in time is dropped and counted.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use forebay_topic::TopicFilter;

use super::outbox::Outbox;
use crate::access::Access;
use crate::codec::{PublishHeader, QoS, Version, encode_publish_header};
use crate::context::Context;
use crate::fanout::{Message, Place, Recipient, TooManyFilters};
use crate::ingress::Ingress;
use crate::session::SubscriptionOptions;
use crate::stats::add;

/// The reader's end. Dropping it ends the deliveries.
pub(super) struct Deliveries {
    recipient: Arc<dyn Recipient>,
    places: HashSet<Place>,
    context: Arc<Context>,
}

/// What the fan-out hands messages to.
struct Peer {
    context: Arc<Context>,
    outbox: Arc<Outbox>,
    version: Version,
    access: Access,
    identity: Arc<str>,
    peer_limit: Option<usize>,
}

impl Deliveries {
    pub(super) fn new(context: Arc<Context>, outbox: Arc<Outbox>, version: Version, ingress: &Ingress, peer_limit: Option<usize>) -> Self {
        let peer = Peer {
            context: Arc::clone(&context),
            outbox,
            version,
            access: ingress.access.clone(),
            identity: Arc::clone(&ingress.key.identity),
            peer_limit,
        };
        Self {
            recipient: Arc::new(peer),
            places: HashSet::new(),
            context,
        }
    }

    /// Subscribes, or changes the options of a subscription that exists (MQTT-3.8.4-3). Messages flow once this returns.
    pub(super) fn subscribe(&mut self, filter: &TopicFilter, options: SubscriptionOptions) -> Result<(), TooManyFilters> {
        let place = self.context.fanout.subscribe(filter, &self.recipient, options)?;
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
    fn deliver(&self, message: &Message, options: &SubscriptionOptions) {
        if options.no_local && *message.publisher == *self.identity.as_bytes() {
            return;
        }
        let Ok(topic) = std::str::from_utf8(&message.topic) else { return };
        if !self.access.may_receive(topic) {
            return;
        }
        let subscription_ids: Vec<NonZeroU32> = options.subscription_id.and_then(NonZeroU32::new).into_iter().collect();
        let header = PublishHeader {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: message.retain && options.retain_as_published,
            topic: &message.topic,
            packet_id: None,
            topic_alias: None,
            expiry: message.expiry,
            subscription_ids: &subscription_ids,
            travelling: &message.properties,
            payload_len: message.payload.len(),
        };
        let is_small_enough = |length: usize| self.peer_limit.is_none_or(|limit| length <= limit);
        let mut was_written = true;
        let was_taken = self.outbox.deliver(|out| {
            let start = out.len();
            was_written = encode_publish_header(&header, self.version, out).is_ok();
            if was_written {
                out.extend_from_slice(&message.payload);
            }
            if !is_small_enough(out.len() - start) {
                // A message over the peer's limit counts as delivered (MQTT-3.1.2-25).
                out.truncate(start);
            }
        });
        let counter = if was_taken && was_written {
            &self.context.stats.fanned_out
        } else {
            &self.context.stats.fanout_dropped
        };
        add(counter, 1);
    }
}
