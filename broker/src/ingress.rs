//! A publish on its way from the socket to the log: the first half of the ack contract.
//!
//! 1. The topic is checked: UTF-8, its bounds, the identity's rights.
//! 2. The first matching route is found.
//! 3. A publish that the cloud can never accept is refused, before anything is promised.
//! 4. A publish with a route, the packet id of every QoS 2 publish of a session that outlives its connection, and what
//!    RETAIN changes, are appended in one call, so that one commit has all of it or nothing.
//! 5. The ack waits for that commit in its connection's outbox ([`crate::connection`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use forebay_topic::PeerText;
use forebay_wal::{AppendError, Batch, NewRecord, Offset, Producer, StreamId, Ticket, Timestamp};

use crate::codec::{Property, Publish, QoS, Version, travelling};
use crate::context::Context;
use crate::fanout::{Message, Origin};
use crate::local_state;
use crate::observe::{Accepted, Device, Publishes, TracedPublish, Unretained, add, is_broker_topic};
use crate::policy::{self, Access, TopicBounds};
use crate::refusal::RefusedPublish;
use crate::retained::{Candidate, Decision};
use crate::session::{self, Change, SessionId, SessionKey};

/// The user property by which the bridge names a record.
const RECORD_ID: &str = "forebay-id";

/// Appends one connection's publishes to the log.
pub(crate) struct Ingress {
    pub(crate) context: Arc<Context>,
    pub(crate) key: SessionKey,
    /// Its session in the log.
    pub(crate) session: SessionId,
    pub(crate) access: Access,
    pub(crate) device: Arc<Device>,
    pub(crate) producer: Producer,
    pub(crate) version: Version,
    /// What is told of its publishes.
    pub(crate) publishes: Option<Box<dyn Publishes>>,
    /// Its session among publishers.
    pub(crate) origin: Origin,
    /// Whether the session has a subscription with No Local, so that its own records must be known.
    pub(crate) has_no_local: bool,
    /// Whether the session outlives the connection, so that its QoS 2 packet ids go to the log.
    pub(crate) is_persistent: bool,
    /// Entries of the stream `local` that the next publish has in its record.
    pub(crate) beside: Vec<u8>,
}

/// A publish after its topic alias was resolved.
#[derive(Clone, Debug)]
pub(crate) struct Inbound {
    pub(crate) publish: Publish,
    /// The topic in full.
    pub(crate) topic: Bytes,
}

/// What happened to a publish.
pub(crate) enum Taken {
    /// It is in this batch. A message beside it is in no batch, and goes to local subscribers when the ack leaves. The last
    /// part is there if the publish is traced.
    Appended(Batch, Option<Message>, Option<Box<TracedPublish>>),
    /// It needs no record. The message goes to local subscribers when the ack leaves.
    Unlogged(Option<Message>),
    /// A QoS 2 publish that was accepted before; only the answer is due again.
    Duplicate,
    /// It is not accepted. [`RefusedPublish`] decides what the peer is told.
    Refused(RefusedPublish),
}

impl Ingress {
    /// Authorises, routes and appends a publish. `qos2` has the packet ids that are accepted and not released.
    pub(crate) fn take(&mut self, inbound: &Inbound, qos2: &mut BTreeSet<u16>, now: Timestamp) -> Taken {
        let publish = &inbound.publish;
        if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id)
            && qos2.contains(&id.get())
        {
            add(&self.context.stats.qos2_duplicates, 1);
            return Taken::Duplicate;
        }
        let Ok(topic) = std::str::from_utf8(&inbound.topic) else {
            return Taken::Refused(RefusedPublish::InvalidTopic);
        };
        if let Err(over) = TopicBounds::of(&self.context.limits).check(topic) {
            return Taken::Refused(RefusedPublish::OverBound(over));
        }
        // What the gateway tells of itself is told by nobody else, whatever the rules.
        if !self.access.may_publish(topic) || is_broker_topic(topic) {
            return Taken::Refused(RefusedPublish::NotAuthorized);
        }
        if self.is_from_here(&publish.properties.travelling) {
            return Taken::Refused(RefusedPublish::Loop);
        }
        let context = Arc::clone(&self.context);
        let found = context.routes.find(topic);
        let route = found.map(|(_, route)| route);
        let stored = route.and_then(|route| Some((route.name.as_str(), route.stream?)));
        if let Some((name, _)) = stored
            && let Err(undeliverable) = context.admission.admit(name, &self.key.identity, topic, publish.payload.len())
        {
            match self.version {
                Version::V5 => return Taken::Refused(RefusedPublish::Undeliverable(undeliverable)),
                // 3.1.1 has no answer but the ack: it is appended, and the bridge makes it a dead letter.
                Version::V311 => {
                    if context.is_first(&self.key.identity, undeliverable.reason) {
                        let identity = PeerText::new(&self.key.identity);
                        tracing::error!(
                            ?identity,
                            reason = undeliverable.reason,
                            "a publish becomes a dead letter: {}",
                            undeliverable.detail
                        );
                    }
                }
            }
        }
        if publish.dup && publish.qos == QoS::AtLeastOnce {
            add(&context.stats.resent_by_devices, 1);
        }
        let taken = self.append(inbound, topic, stored, now);
        if matches!(taken, Taken::Appended(..) | Taken::Unlogged(_)) {
            if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) {
                qos2.insert(id.get());
            }
            add(&context.stats.accepted, 1);
            add(&context.stats.payload_bytes, publish.payload.len() as u64);
            self.device.accepted();
            if let Some((index, _)) = found {
                context.route_stats.note(index, &now);
            }
            match route {
                None => self.unrouted(topic),
                Some(route) if route.stream.is_none() => add(&context.stats.local, 1),
                Some(_) => {}
            }
            if let Some(publishes) = &mut self.publishes {
                publishes.accepted(&Accepted {
                    topic,
                    payload: &publish.payload,
                    received: now,
                });
            }
        }
        taken
    }

    /// Whether the bridge of this gateway has sent it before: it carries the id of a record of ours.
    fn is_from_here(&self, properties: &Bytes) -> bool {
        let is_ours = |id: &str| {
            let gateway = self.context.gateway.as_str();
            id.strip_prefix(gateway).is_some_and(|rest| rest.starts_with('/'))
        };
        travelling(properties).any(|property| match property {
            Property::User((name, id)) => name.as_str() == RECORD_ID && is_ours(id.as_str()),
            _ => false,
        })
    }

    /// All packets of one read have been handled.
    pub(crate) fn handled(&mut self) {
        if let Some(publishes) = &mut self.publishes {
            publishes.handled();
        }
    }

    /// Releases a QoS 2 packet id. `None` if the log cannot append now; `Some(None)` if the id was not in the log.
    pub(crate) fn release(&mut self, id: u16, now: Timestamp) -> Option<Option<Batch>> {
        if !self.is_persistent {
            return Some(None);
        }
        let payload = session::encode(&[Change::Qos2Released(self.session.clone(), id)]);
        self.append_changes(&payload, now).map(Some)
    }

    /// Appends changes of the session. `None` if the log cannot append now.
    pub(crate) fn append_changes(&mut self, payload: &[u8], now: Timestamp) -> Option<Batch> {
        let record = local_state::record(now, &self.key.identity, payload);
        self.producer.append(&[record]).ok().map(|ticket| ticket.batch)
    }

    /// The message for local subscribers; `None` if there are none.
    pub(crate) fn message(&self, inbound: &Inbound) -> Option<Message> {
        self.context.fanout.is_wanted().then(|| Message {
            topic: inbound.topic.clone(),
            origin: self.origin,
            qos: inbound.publish.qos.level(),
            retain: inbound.publish.retain,
            expiry: inbound.publish.properties.expiry,
            properties: inbound.publish.properties.travelling.clone(),
            payload: inbound.publish.payload.clone(),
        })
    }

    fn append(&mut self, inbound: &Inbound, topic: &str, stored: Option<(&str, StreamId)>, now: Timestamp) -> Taken {
        let publish = &inbound.publish;
        let context = Arc::clone(&self.context);
        let candidate = Candidate {
            topic,
            identity: &self.key.identity,
            received: now,
            qos: publish.qos.level(),
            expiry: publish.properties.expiry,
            properties: &publish.properties.travelling,
            payload: &publish.payload,
        };
        let mut local = std::mem::take(&mut self.beside);
        local.extend(match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) if self.is_persistent => session::encode(&[Change::Qos2Received(self.session.clone(), id.get())]),
            _ => Vec::new(),
        });
        let mut change = None;
        if publish.retain {
            match context.retained.decide(&candidate) {
                Decision::Unchanged => {}
                Decision::Change(pending) => {
                    local.extend(pending.entry());
                    change = Some(pending);
                }
                Decision::Behind if publish.qos == QoS::AtMostOnce => context.retained.refuse(&candidate, Unretained::Behind),
                Decision::Behind => return Taken::Refused(RefusedPublish::LogFull),
            }
        }
        let identity = Arc::clone(&self.key.identity);
        let message = stored.map(|(route, stream)| NewRecord {
            stream,
            received: now,
            identity: &identity,
            route,
            topic,
            payload: &publish.payload,
            qos: publish.qos.level(),
            retain: publish.retain,
            expiry: publish.properties.expiry,
            properties: &publish.properties.travelling,
        });
        let own = self.has_no_local.then_some(self.origin);
        let local = (!local.is_empty()).then(|| local_state::record(now, &identity, &local));
        let result = match (message, local) {
            (Some(message), Some(local)) => append_message(&context, own, &mut self.producer, &[message, local]),
            (Some(message), None) => append_message(&context, own, &mut self.producer, &[message]),
            (None, Some(local)) => self.producer.append(&[local]),
            (None, None) => return Taken::Unlogged(self.message(inbound)),
        };
        match (change, &result) {
            (Some(change), Ok(ticket)) => change.appended(ticket.batch),
            (Some(change), Err(_)) => {
                // It holds the lock that other publishes with RETAIN wait for.
                drop(change);
                if publish.qos == QoS::AtMostOnce {
                    context.retained.refuse(&candidate, Unretained::LogUnavailable);
                }
            }
            (None, _) => {}
        }
        match result {
            Ok(ticket) => match stored {
                Some((_, stream)) => Taken::Appended(ticket.batch, None, self.traced(inbound, topic, stream, ticket.offset)),
                // The fan-out does not take records of `local` from the log: the message goes to local subscribers with the ack.
                None => Taken::Appended(ticket.batch, self.message(inbound), None),
            },
            Err(error) => Taken::Refused(error.into()),
        }
    }

    fn traced(&self, inbound: &Inbound, topic: &str, stream: StreamId, offset: Offset) -> Option<Box<TracedPublish>> {
        if !self.context.observer.traces(stream, offset) {
            return None;
        }
        let now = Instant::now();
        Some(Box::new(TracedPublish {
            stream,
            offset,
            identity: Arc::clone(&self.key.identity),
            topic: topic.to_owned(),
            qos: inbound.publish.qos.level(),
            // The outbox puts in the real time.
            read: now,
            appended: now,
            committed: None,
            answered: None,
        }))
    }

    fn unrouted(&self, topic: &str) {
        add(&self.context.stats.unrouted, 1);
        if self.context.unrouted.count(topic) && self.context.is_first(&self.key.identity, "unrouted") {
            let nearest = policy::nearest(topic, &self.context.routes);
            let advice = nearest.map_or_else(String::new, |(filter, letters)| {
                format!("; the nearest route, `{filter}`, differs by {letters} letters")
            });
            let (identity, topic) = (PeerText::new(&self.key.identity), PeerText::new(topic));
            tracing::warn!(
                ?identity,
                ?topic,
                "a publish matches no route and is not sent to the cloud{advice}; add a route, or one with `local: true` if it is to stay on the gateway"
            );
        }
    }
}

/// Appends a message for the cloud, which is first of these; `own` is its session, if that has a subscription with No Local.
fn append_message(
    context: &Context,
    own: Option<Origin>,
    producer: &mut Producer,
    records: &[NewRecord<'_>],
) -> Result<Ticket, AppendError> {
    let Some(own) = own else { return producer.append(records) };
    let stream = records[0].stream;
    let place = |ticket: &Result<Ticket, AppendError>| ticket.as_ref().ok().map(|ticket| (stream, ticket.offset, ticket.batch));
    context.fanout.append_as(own, || producer.append(records), place)
}
