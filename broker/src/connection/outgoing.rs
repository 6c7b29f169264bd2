//! A PUBLISH to a local subscriber.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::BytesMut;

use super::aliases::{Aliases, Named};
use crate::codec::{PublishHeader, QoS, Version, encode_publish_header};
use crate::fanout::Message;

/// The subscriber's connection.
#[derive(Clone, Copy)]
pub(super) struct Receiver {
    pub(super) version: Version,
    /// Its Maximum Packet Size, on 3.1.1 that of its access rule: a larger message counts as delivered (MQTT-3.1.2-25).
    pub(super) peer_limit: Option<usize>,
}

/// The message.
pub(super) struct Outgoing<'m> {
    /// Its QoS here, and its packet id at QoS 1 and 2.
    pub(super) qos: QoS,
    pub(super) packet_id: Option<NonZeroU16>,
    pub(super) topic: &'m [u8],
    pub(super) retain: bool,
    /// The seconds until it expires (MQTT-3.3.2-6).
    pub(super) expiry: Option<u32>,
    pub(super) properties: &'m [u8],
    pub(super) payload: &'m [u8],
}

impl<'m> Outgoing<'m> {
    /// At QoS 0, without RETAIN.
    pub(super) fn of(message: &'m Message, expiry: Option<u32>) -> Self {
        Self {
            qos: QoS::AtMostOnce,
            packet_id: None,
            topic: &message.topic,
            retain: false,
            expiry,
            properties: &message.properties,
            payload: &message.payload,
        }
    }
}

impl Receiver {
    /// Appends the packet with these ids of subscriptions, unless it is larger than the peer allows; false if it cannot be encoded.
    pub(super) fn write(
        self,
        outgoing: &Outgoing<'_>,
        subscription_ids: &[NonZeroU32],
        aliases: Option<&mut Aliases>,
        out: &mut BytesMut,
    ) -> bool {
        let plain = header(outgoing, subscription_ids);
        if !self.takes(&plain) {
            return true;
        }
        let named = match self.version {
            Version::V5 => aliases.as_ref().map_or(Named::Plain, |aliases| aliases.of(outgoing.topic)),
            Version::V311 => Named::Plain,
        };
        let (header, is_new) = match named {
            Named::Plain => (plain, false),
            Named::Known(alias) => (
                PublishHeader {
                    topic: b"",
                    topic_alias: Some(alias),
                    ..plain
                },
                false,
            ),
            Named::New(alias) => {
                let with_alias = PublishHeader {
                    topic_alias: Some(alias),
                    ..plain
                };
                // Without it, it fits.
                if self.takes(&with_alias) {
                    (with_alias, true)
                } else {
                    (plain, false)
                }
            }
        };
        let is_written = encode_publish_header(&header, self.version, out).is_ok();
        if is_written {
            out.extend_from_slice(outgoing.payload);
            if is_new && let Some(aliases) = aliases {
                aliases.set(outgoing.topic);
            }
        }
        is_written
    }

    /// Whether the packet with these ids of subscriptions is within what the peer allows.
    pub(super) fn fits(self, outgoing: &Outgoing<'_>, subscription_ids: &[NonZeroU32]) -> bool {
        self.takes(&header(outgoing, subscription_ids))
    }

    fn takes(self, header: &PublishHeader<'_>) -> bool {
        self.peer_limit.is_none_or(|limit| header.packet_len(self.version) <= limit)
    }
}

fn header<'a>(outgoing: &Outgoing<'a>, subscription_ids: &'a [NonZeroU32]) -> PublishHeader<'a> {
    PublishHeader {
        dup: false,
        qos: outgoing.qos,
        retain: outgoing.retain,
        topic: outgoing.topic,
        packet_id: outgoing.packet_id,
        topic_alias: None,
        expiry: outgoing.expiry,
        subscription_ids,
        travelling: outgoing.properties,
        payload_len: outgoing.payload.len(),
    }
}
