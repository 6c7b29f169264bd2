//! A retained message as one peer gets it.

use std::num::NonZeroU32;

use bytes::BytesMut;

use crate::codec::{PublishHeader, QoS, Version, encode_publish_header};
use crate::retained::RetainedMessage;
use crate::session::SubscriptionOptions;

/// Who gets it, and how.
#[derive(Clone, Copy)]
pub(super) struct Receiver {
    pub(super) version: Version,
    /// Its Maximum Packet Size: what is larger counts as delivered (MQTT-3.1.2-25).
    pub(super) peer_limit: Option<usize>,
    pub(super) options: SubscriptionOptions,
}

/// Appends the PUBLISH, with RETAIN set (MQTT-3.3.1-8) and what is left of its expiry (MQTT-3.3.2-6), unless the peer
/// takes no packet of this size.
pub(super) fn write(message: &RetainedMessage, expiry: Option<u32>, receiver: &Receiver, out: &mut BytesMut) {
    let subscription_ids: Vec<NonZeroU32> = receiver.options.subscription_id.and_then(NonZeroU32::new).into_iter().collect();
    let header = PublishHeader {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: true,
        topic: message.topic.as_bytes(),
        packet_id: None,
        topic_alias: None,
        expiry,
        subscription_ids: &subscription_ids,
        travelling: &message.properties,
        payload_len: message.payload.len(),
    };
    if receiver.peer_limit.is_some_and(|limit| header.packet_len(receiver.version) > limit) {
        return;
    }
    match encode_publish_header(&header, receiver.version, out) {
        Ok(()) => out.extend_from_slice(&message.payload),
        Err(error) => tracing::error!(%error, topic = &*message.topic, "a retained message could not be encoded"),
    }
}
