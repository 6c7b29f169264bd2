//! A PUBLISH to a local subscriber.

use std::num::NonZeroU32;

use bytes::BytesMut;

use crate::codec::{PublishHeader, QoS, Version, encode_publish_header};

/// The subscriber's connection.
#[derive(Clone, Copy)]
pub(super) struct Receiver {
    pub(super) version: Version,
    /// Its Maximum Packet Size: a larger message counts as delivered (MQTT-3.1.2-25).
    pub(super) peer_limit: Option<usize>,
}

/// The message. Local subscribers get QoS 0.
pub(super) struct Outgoing<'m> {
    pub(super) topic: &'m [u8],
    pub(super) retain: bool,
    /// The seconds until it expires (MQTT-3.3.2-6).
    pub(super) expiry: Option<u32>,
    pub(super) properties: &'m [u8],
    pub(super) payload: &'m [u8],
}

impl Receiver {
    /// Appends the packet with these ids of subscriptions, unless it is larger than the peer allows; false if it cannot be encoded.
    pub(super) fn write(self, outgoing: &Outgoing<'_>, subscription_ids: &[NonZeroU32], out: &mut BytesMut) -> bool {
        let header = PublishHeader {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: outgoing.retain,
            topic: outgoing.topic,
            packet_id: None,
            topic_alias: None,
            expiry: outgoing.expiry,
            subscription_ids,
            travelling: outgoing.properties,
            payload_len: outgoing.payload.len(),
        };
        if self.peer_limit.is_some_and(|limit| header.packet_len(self.version) > limit) {
            return true;
        }
        let is_written = encode_publish_header(&header, self.version, out).is_ok();
        if is_written {
            out.extend_from_slice(outgoing.payload);
        }
        is_written
    }
}
