//! Sends the retained messages of subscriptions at QoS 1 and 2, as far as the peer's answers make room for them.
//!
//! A place in the tree of topics is kept of each subscription, and no messages. The peer's packets are read meanwhile: its answers
//! are among them. What is owed to the session already goes first, so of one topic nothing older comes after a newer message.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use forebay_topic::TopicFilter;
use forebay_wal::Timestamp;

use super::Reader;
use crate::codec::QoS;
use crate::delivery::{Offered, Owed};
use crate::fanout::{Message, Origin};
use crate::observe::add;
use crate::retained::{Page, RetainedMessage, Span, Wanted};
use crate::session::SubscriptionOptions;

/// The subscriptions whose retained messages are not all sent, oldest first. One for each filter, so not more than a session may
/// have.
#[derive(Default)]
pub(super) struct RetainedLater(VecDeque<Begun>);

struct Begun {
    filter: TopicFilter,
    options: SubscriptionOptions,
    /// The ranges to go, the first of them from `from` on.
    spans: VecDeque<Span>,
    from: Option<String>,
}

impl RetainedLater {
    /// Begins to send those of this subscription.
    pub(super) fn begin(&mut self, filter: TopicFilter, options: SubscriptionOptions) {
        self.0.push_back(Begun {
            spans: Span::of(&filter).into(),
            filter,
            options,
            from: None,
        });
    }

    /// Ends that: there is no such subscription any more, or a newer one.
    pub(super) fn forget(&mut self, filter: &str) {
        self.0.retain(|begun| begun.filter.as_str() != filter);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next page, of this many messages at most. A range that is done is left behind, a subscription too.
    fn wanted(&mut self, most: usize, now: Timestamp) -> Option<Wanted> {
        while let Some(begun) = self.0.front_mut() {
            if let Some(span) = begun.spans.front() {
                return Some(Wanted {
                    from: begun.from.clone().unwrap_or_else(|| span.start()),
                    span: span.clone(),
                    filter: begun.filter.clone(),
                    now,
                    most,
                });
            }
            self.0.pop_front();
        }
        None
    }

    /// Goes on from this topic of the first range, or with the next range.
    fn go_on(&mut self, from: Option<String>) {
        if let Some(begun) = self.0.front_mut() {
            if from.is_none() {
                begun.spans.pop_front();
            }
            begun.from = from;
        }
    }
}

/// There is no room for the message of this topic.
struct NoRoomFor(String);

impl Reader {
    /// Sends as many as there is room for. The outbox may have none, or the peer's window.
    pub(super) async fn send_retained_later(&mut self) {
        while !self.outbox.ending().is_cancelled() {
            let room = self.deliveries.free();
            if room == 0 {
                return;
            }
            let now = self.ingress.context.clock.now();
            let Some(wanted) = self.retained_later.wanted(room, now) else {
                return;
            };
            let Some(options) = self.retained_later.0.front().map(|begun| begun.options) else {
                return;
            };
            let filter = wanted.filter.clone();
            match self.ingress.context.retained.page(wanted).await {
                Ok(page) => match self.send_page_later(&page, options) {
                    Ok(next) => self.retained_later.go_on(next),
                    Err(NoRoomFor(topic)) => return self.retained_later.go_on(Some(topic)),
                },
                Err(error) => {
                    self.note_unread(&filter, &error);
                    self.retained_later.forget(filter.as_str());
                }
            }
        }
    }

    /// Returns where the next page begins: at the first message that is not the newest of its topic any more.
    fn send_page_later(&self, page: &Page, options: SubscriptionOptions) -> Result<Option<String>, NoRoomFor> {
        for message in &page.messages {
            if !self.may_have(message, options) {
                continue;
            }
            match self.send_one_later(message, page, options) {
                Offered::Done => {}
                Offered::Stale => return Ok(Some(message.topic.to_string())),
                Offered::NoRoom => return Err(NoRoomFor(message.topic.to_string())),
            }
        }
        Ok(page.next.clone())
    }

    fn send_one_later(&self, message: &RetainedMessage, page: &Page, options: SubscriptionOptions) -> Offered {
        let qos = QoS::from_level(message.head.qos.min(options.qos)).unwrap_or_default();
        if qos == QoS::AtMostOnce {
            return match self.outbox.has_room() {
                true if self.send_one(message, page, options) => Offered::Done,
                true => Offered::Stale,
                false => Offered::NoRoom,
            };
        }
        let context = &self.ingress.context;
        let Ok(expiry) = message.head.remaining(&context.clock.now()) else {
            return Offered::Done;
        };
        let owed = Owed {
            message: Arc::new(Message {
                topic: Bytes::copy_from_slice(message.topic.as_bytes()),
                origin: Origin::UNKNOWN,
                qos: message.head.qos,
                retain: true,
                expiry,
                properties: message.properties.clone(),
                payload: message.payload.clone(),
            }),
            qos,
            // It is not live, so RETAIN is set (MQTT-3.3.1-8).
            retain: true,
            subscription_ids: options.id().into_iter().collect(),
            since: Instant::now(),
        };
        let is_current = || page.is_current(message, &context.retained);
        let offered = self.deliveries.offer(&owed, &is_current);
        if offered == Offered::Done {
            add(&context.stats.retained_sent, 1);
        }
        offered
    }
}
