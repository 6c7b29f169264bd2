//! rumqttd's router, fed only what it survives (docs/decisions/0001, 0018).
//!
//! One link goes in, one comes out, and every publish has the same ASCII topic, because the router keeps several
//! kilobytes for each filter and link, frees no topic that it was ever shown, and slices the first byte of each. It sees
//! QoS 0 only, no retain flag, no aliases, no shared subscriptions, no wills, no client's own ids. What comes out keeps the
//! order in which it went in.

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Filter, Packet, Publish, QoS, RetainForwardRule, Subscribe};
use rumqttd::{Notification, Router, RouterConfig};

use super::SILENCE;

/// The topic of all publishes.
const TOPIC: &str = "m";
/// Bytes of one segment of the router's log; two pushes wait in it at most.
const SEGMENT_BYTES: usize = 2 * super::PUSH_BYTES;
/// Segments kept: a push may begin in one and end in the next.
const SEGMENTS: usize = 3;

/// The router's thread ended or refused: nothing reaches local subscribers any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the local fan-out's router does not respond")]
pub(crate) struct RouterGone;

/// The link that messages enter by.
pub(super) struct Entrance {
    sender: LinkTx,
    /// Nothing comes by it, but the router needs a receiver.
    _receiver: LinkRx,
}

/// The link that they leave by.
pub(super) struct Exit {
    receiver: LinkRx,
    /// Subscribes; without it the link would end.
    sender: LinkTx,
}

/// Starts the router's thread. Blocks until it answers.
pub(super) fn start() -> Result<(Entrance, Exit), RouterGone> {
    let config = RouterConfig {
        max_connections: 2,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        custom_segment: None,
        initialized_filters: None,
        shared_subscriptions_strategy: rumqttd::Strategy::RoundRobin,
    };
    let events = Router::new(0, config).spawn();
    let connect = |id: &str| {
        let (sender, receiver, _) = LinkBuilder::new(id, events.clone()).build().map_err(|_| RouterGone)?;
        Ok((sender, receiver))
    };
    let (sender, receiver) = connect("exit")?;
    let mut exit = Exit { receiver, sender };
    exit.subscribe()?;
    let (sender, receiver) = connect("entrance")?;
    let entrance = Entrance {
        sender,
        _receiver: receiver,
    };
    Ok((entrance, exit))
}

impl Entrance {
    /// Pushes publishes with these payloads. Blocks while the router's queue is full.
    pub(super) fn push(&mut self, payloads: impl Iterator<Item = Bytes>) -> Result<(), RouterGone> {
        let mut packets = payloads.map(|payload| Packet::Publish(Publish::new(Bytes::from_static(TOPIC.as_bytes()), payload, false), None));
        let Some(first) = packets.next() else { return Ok(()) };
        let mut last = first;
        {
            let mut buffer = self.sender.buffer();
            for packet in packets {
                buffer.push_back(std::mem::replace(&mut last, packet));
            }
        }
        // The last one wakes the router, which takes them all.
        send(&mut self.sender, last)
    }
}

impl Exit {
    /// The next payload; `None` if there is none before the deadline. Blocks.
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, RouterGone> {
        loop {
            match self.notification(deadline)? {
                Some(Notification::Forward(forward)) => return Ok(Some(forward.publish.payload)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn subscribe(&mut self) -> Result<(), RouterGone> {
        let filter = Filter {
            path: TOPIC.to_owned(),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let subscribe = Subscribe {
            pkid: 0,
            filters: vec![filter],
        };
        send(&mut self.sender, Packet::Subscribe(subscribe, None))?;
        let deadline = Instant::now() + SILENCE;
        loop {
            match self.notification(deadline)? {
                Some(Notification::DeviceAck(_)) => return Ok(()),
                Some(_) => {}
                None => return Err(RouterGone),
            }
        }
    }

    fn notification(&mut self, deadline: Instant) -> Result<Option<Notification>, RouterGone> {
        loop {
            match self.receiver.recv_deadline(deadline) {
                // It waits until the router reports room again.
                Ok(Some(Notification::Unschedule)) => self.receiver.ready().map_err(|_| RouterGone)?,
                Ok(Some(Notification::Disconnect(..))) => return Err(RouterGone),
                Ok(Some(notification)) => return Ok(Some(notification)),
                Ok(None) => {}
                Err(_) if Instant::now() >= deadline => return Ok(None),
                Err(_) => return Err(RouterGone),
            }
        }
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
