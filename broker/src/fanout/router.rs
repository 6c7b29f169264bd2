//! rumqttd's router, fed only what it survives (docs/decisions/0001).
//!
//! Every topic and filter gets an ASCII prefix (`t/`, or `d/` for what begins with `$`), because the router slices the
//! first byte of a topic and knows nothing of `$`. It sees QoS 0 only, no retain flag, no aliases, no shared
//! subscriptions, no wills, no client's own ids, and only topics that some filter matches.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Filter, Packet, PingReq, Publish, QoS, RetainForwardRule, Subscribe, SubscribeProperties, Unsubscribe};
use rumqttd::{Notification, Router as Rumqttd, RouterConfig};

use super::envelope::{self, Message};

/// Bytes of one segment of a filter's log; sessions drain at once, so that this is a burst's length, not a queue's.
const SEGMENT_BYTES: usize = 1 << 20;
/// Segments kept per filter.
const SEGMENTS: usize = 2;

type Connect = dyn Fn(&str) -> Result<(LinkTx, LinkRx), RouterGone> + Send + Sync;

/// A running router.
#[derive(Clone)]
pub(super) struct Router {
    connect: Arc<Connect>,
}

/// The router's thread ended or refused: nothing reaches local subscribers any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the local fan-out's router does not answer")]
pub(crate) struct RouterGone;

/// The one link that messages enter by.
pub(super) struct Ingest {
    sender: LinkTx,
    receiver: LinkRx,
}

/// One session's link, on which its subscriptions arrive.
pub(super) struct Link {
    sender: LinkTx,
    receiver: LinkRx,
}

/// What arrived on a [`Link`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A message for the subscription with this number.
    Message(u32, Message),
    /// The router has done a subscribe or unsubscribe.
    Done,
}

impl Router {
    /// Starts the router's thread. `max_links` counts the ingest link too.
    pub(super) fn start(max_links: usize) -> Self {
        let config = RouterConfig {
            max_connections: max_links,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            custom_segment: None,
            initialized_filters: None,
            shared_subscriptions_strategy: rumqttd::Strategy::RoundRobin,
        };
        let events = Rumqttd::new(0, config).spawn();
        let connect = move |id: &str| {
            let (sender, receiver, _) = LinkBuilder::new(id, events.clone()).build().map_err(|_| RouterGone)?;
            Ok((sender, receiver))
        };
        Self {
            connect: Arc::new(connect),
        }
    }

    /// The link for messages. Blocks until the router answers.
    pub(super) fn ingest(&self) -> Result<Ingest, RouterGone> {
        let (sender, receiver) = (self.connect)("ingest")?;
        Ok(Ingest { sender, receiver })
    }

    /// A session's link under a synthetic id. Blocks until the router answers.
    pub(super) fn link(&self, id: usize) -> Result<Link, RouterGone> {
        let (sender, receiver) = (self.connect)(&format!("s{id}"))?;
        Ok(Link { sender, receiver })
    }
}

impl Ingest {
    /// Pushes messages and waits until the router has taken them all (its PINGRESP), so that its inbound buffer, which
    /// has no bound of its own, never holds more than one push. Blocks.
    pub(super) fn push(&mut self, messages: &[Message]) -> Result<(), RouterGone> {
        {
            let mut buffer = self.sender.buffer();
            for message in messages {
                buffer.push_back(Packet::Publish(
                    Publish::new(prefixed(&message.topic), envelope::wrap(message), false),
                    None,
                ));
            }
        }
        send(&mut self.sender, Packet::PingReq(PingReq))?;
        let deadline = std::time::Instant::now() + super::SILENCE;
        loop {
            match self.receiver.recv_deadline(deadline) {
                Ok(Some(Notification::DeviceAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(_) => return Err(RouterGone),
            }
        }
    }
}

impl Link {
    /// Asks for a subscription at QoS 0; [`Arrival::Done`] follows. Blocks while the router's queue is full.
    pub(super) fn subscribe(&mut self, filter: &str, number: u32) -> Result<(), RouterGone> {
        let filter = Filter {
            path: prefixed_filter(filter),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let properties = SubscribeProperties {
            id: usize::try_from(number).ok(),
            user_properties: Vec::new(),
        };
        send(
            &mut self.sender,
            Packet::Subscribe(
                Subscribe {
                    pkid: 0,
                    filters: vec![filter],
                },
                Some(properties),
            ),
        )
    }

    /// Ends a subscription that exists; [`Arrival::Done`] follows. Blocks while the router's queue is full.
    pub(super) fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        send(
            &mut self.sender,
            Packet::Unsubscribe(
                Unsubscribe {
                    pkid: 0,
                    filters: vec![prefixed_filter(filter)],
                },
                None,
            ),
        )
    }

    /// Waits for what comes next. Cancel safe: nothing is taken from the link before it is returned.
    pub(super) async fn next(&mut self) -> Result<Arrival, RouterGone> {
        loop {
            match self.receiver.next().await.map_err(|_| RouterGone)? {
                Some(Notification::Forward(forward)) => {
                    let number = forward
                        .properties
                        .as_ref()
                        .and_then(|p| p.subscription_identifiers.first().copied());
                    let number = number.and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
                    if let Some(message) = envelope::unwrap(unprefixed(&forward.publish.topic), forward.publish.payload) {
                        return Ok(Arrival::Message(number, message));
                    }
                }
                Some(Notification::DeviceAck(_)) => return Ok(Arrival::Done),
                Some(Notification::Unschedule) => self.receiver.wake().await.map_err(|_| RouterGone)?,
                Some(Notification::Disconnect(..)) => return Err(RouterGone),
                _ => {}
            }
        }
    }

    /// Leaves the router. The DISCONNECT travels in the link's own buffer, so that it cannot hit a link that reuses the id.
    pub(super) fn close(mut self) {
        let disconnect = rumqttd::protocol::Disconnect {
            reason_code: rumqttd::protocol::DisconnectReasonCode::NormalDisconnection,
        };
        // A router that is gone has forgotten the link already.
        send(&mut self.sender, Packet::Disconnect(disconnect, None)).ok();
    }
}

/// `LinkTx::send` is an async function that never waits for anything but a blocking queue: one poll ends it.
fn send(link: &mut LinkTx, packet: Packet) -> Result<(), RouterGone> {
    let future = std::pin::pin!(link.send(packet));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(_)) => Ok(()),
        Poll::Ready(Err(_)) | Poll::Pending => Err(RouterGone),
    }
}

fn prefix(text: &[u8]) -> &'static [u8] {
    if text.first() == Some(&b'$') { b"d/" } else { b"t/" }
}

fn prefixed(topic: &[u8]) -> Bytes {
    [prefix(topic), topic].concat().into()
}

fn prefixed_filter(filter: &str) -> String {
    let prefix = if filter.starts_with('$') { "d/" } else { "t/" };
    format!("{prefix}{filter}")
}

fn unprefixed(topic: &Bytes) -> Bytes {
    topic.slice(topic.len().min(2)..)
}
