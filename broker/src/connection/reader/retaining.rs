//! Sends the retained messages of a new subscription at QoS 0.
//!
//! The reader sends them before it goes on, so SUBSCRIBE stays a barrier. It has one page in memory at a time, and only
//! while the outbox has room for it. A topic's newest message comes last: a message is visible as retained before it goes to
//! subscribers, so one that is still current when it enters the outbox cannot come after a newer one.

use forebay_topic::{PeerText, TopicFilter};

use super::super::outbox::Closing;
use super::super::outgoing::Outgoing;
use super::Reader;
use crate::broker_topics;
use crate::codec::{QoS, RetainHandling};
use crate::observe::add;
use crate::retained::{LookupError, Page, RetainedMessage, Span, Wanted};
use crate::session::SubscriptionOptions;

/// Whether a subscription gets retained messages (MQTT-3.3.1-9 ff.; on 3.1.1 always, MQTT-3.3.1-6).
pub(super) fn is_due(handling: RetainHandling, is_new: bool) -> bool {
    match handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    }
}

impl Reader {
    /// Sends the retained messages that match this filter.
    pub(super) async fn send_retained(&mut self, filter: &TopicFilter, options: SubscriptionOptions) -> Result<(), Closing> {
        if self.ingress.context.retained.is_empty() {
            return Ok(());
        }
        for span in Span::of(filter) {
            let mut from = Some(span.start());
            while let Some(place) = from {
                self.until(|outbox| outbox.has_room()).await?;
                let context = &self.ingress.context;
                let wanted = Wanted {
                    span: span.clone(),
                    from: place,
                    filter: filter.clone(),
                    now: context.clock.now(),
                    most: usize::MAX,
                };
                match context.retained.page(wanted).await {
                    Ok(page) => from = self.send_page(&page, options),
                    Err(error) => {
                        self.note_unread(filter, &error);
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what the gateway tells of itself at the topics that match this filter.
    pub(super) fn send_broker_topics(&self, filter: &TopicFilter, options: SubscriptionOptions) {
        let context = &self.ingress.context;
        for (topic, value) in broker_topics::values(context) {
            if !filter.matches(&topic) || !self.ingress.access.may_receive(&topic) {
                continue;
            }
            let message = broker_topics::message(&topic, &value);
            let outgoing = Outgoing {
                retain: true,
                ..Outgoing::of(&message, None)
            };
            let ids = options.id();
            // The names are ASCII, so they can be encoded.
            let write = |aliases: Option<&mut _>, out: &mut _| {
                self.receiver.write(&outgoing, ids.as_slice(), aliases, out);
            };
            self.outbox.deliver_if(|| true, write);
        }
    }

    pub(super) fn note_unread(&self, filter: &TopicFilter, error: &LookupError) {
        add(&self.ingress.context.stats.retained_unread, 1);
        if self.is_first("retained_unread") {
            let (identity, filter) = (PeerText::new(&self.ingress.key.identity), PeerText::new(filter.as_str()));
            tracing::warn!(?identity, ?filter, %error, "a subscription did not get its retained messages: state.redb cannot be read; check the disk");
        }
    }

    /// Returns where the next page begins: at the first message of this page that is no longer the newest of its topic.
    fn send_page(&self, page: &Page, options: SubscriptionOptions) -> Option<String> {
        for message in &page.messages {
            if self.may_have(message, options) && !self.send_one(message, page, options) {
                return Some(message.topic.to_string());
            }
        }
        page.next.clone()
    }

    pub(super) fn may_have(&self, message: &RetainedMessage, options: SubscriptionOptions) -> bool {
        // A retained message has its publisher's identity only. Where several clients share one, each gets its own, too: better than that
        // it misses those of the others.
        let is_own = options.no_local && !self.has_fixed_identity && message.head.identity == self.ingress.key.identity;
        !is_own && self.ingress.access.may_receive(&message.topic)
    }

    pub(super) fn send_one(&self, message: &RetainedMessage, page: &Page, options: SubscriptionOptions) -> bool {
        let context = &self.ingress.context;
        let Ok(expiry) = message.head.remaining(&context.clock.now()) else {
            return true;
        };
        let outgoing = Outgoing {
            qos: QoS::AtMostOnce,
            packet_id: None,
            topic: message.topic.as_bytes(),
            // It is not live, so RETAIN is set (MQTT-3.3.1-8).
            retain: true,
            expiry,
            properties: &message.properties,
            payload: &message.payload,
        };
        let receiver = self.receiver;
        let ids = options.id();
        let is_current = || page.is_current(message, &context.retained);
        let is_sent = self.outbox.deliver_if(is_current, |aliases, out| {
            if !receiver.write(&outgoing, ids.as_slice(), aliases, out) && self.is_first("encode") {
                tracing::error!(topic = ?PeerText::new(&message.topic), "a retained message could not be encoded");
            }
        });
        if is_sent {
            add(&context.stats.retained_sent, 1);
            add(&context.stats.payload_bytes_sent, message.payload.len() as u64);
        }
        is_sent
    }
}
