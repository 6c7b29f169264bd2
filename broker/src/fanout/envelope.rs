//! What the router carries: publishes with one topic for all. The message with its own topic is in their payload.
//!
//! `sequence (8) | flags (1) | topic length (2) | topic | origin (8) | expiry (4) | properties length (4) | properties | payload`, integers big-endian. Flags: bits 0-1 QoS as published, bit 2 RETAIN as published, bit 3 expiry
//! present.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Origin;

/// A message on its way to local subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: Bytes,
    /// Whose it is, for subscriptions with No Local.
    pub(crate) origin: Origin,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) expiry: Option<u32>,
    pub(crate) properties: Bytes,
    pub(crate) payload: Bytes,
}

impl Message {
    /// Its bytes.
    pub(crate) fn size(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }

    /// The same in memory of its own. What came from a batch or a connection's buffer keeps the whole of that.
    pub(super) fn alone(&self) -> Self {
        let mut bytes = BytesMut::with_capacity(self.size());
        let mut copied = |part: &Bytes| {
            bytes.extend_from_slice(part);
            bytes.split().freeze()
        };
        Self {
            topic: copied(&self.topic),
            properties: copied(&self.properties),
            payload: copied(&self.payload),
            ..*self
        }
    }
}

const RETAIN: u8 = 1 << 2;
const EXPIRY: u8 = 1 << 3;
/// Bytes of the fields of fixed size.
const FIXED_BYTES: usize = 27;

/// Packs a message and its sequence number.
pub(crate) fn wrap(sequence: u64, message: &Message) -> Bytes {
    let topic = &message.topic[..message.topic.len().min(usize::from(u16::MAX))];
    let mut out = BytesMut::with_capacity(FIXED_BYTES + topic.len() + message.properties.len() + message.payload.len());
    out.put_u64(sequence);
    out.put_u8(message.qos & 3 | if message.retain { RETAIN } else { 0 } | if message.expiry.is_some() { EXPIRY } else { 0 });
    out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
    out.put_slice(topic);
    out.put_u64(message.origin.0);
    out.put_u32(message.expiry.unwrap_or(0));
    out.put_u32(u32::try_from(message.properties.len()).unwrap_or(0));
    out.put_slice(&message.properties);
    out.put_slice(&message.payload);
    out.freeze()
}

/// Unpacks; `None` for bytes that [`wrap`] did not make.
pub(crate) fn unwrap(mut bytes: Bytes) -> Option<(u64, Message)> {
    if bytes.len() < FIXED_BYTES {
        return None;
    }
    let sequence = bytes.get_u64();
    let flags = bytes.get_u8();
    let topic = usize::from(bytes.get_u16());
    if bytes.len() < topic + 16 {
        return None;
    }
    let topic = bytes.split_to(topic);
    let origin = Origin(bytes.get_u64());
    let expiry = bytes.get_u32();
    let properties = bytes.get_u32() as usize;
    if bytes.len() < properties {
        return None;
    }
    let properties = bytes.split_to(properties);
    let message = Message {
        topic,
        origin,
        qos: flags & 3,
        retain: flags & RETAIN != 0,
        expiry: (flags & EXPIRY != 0).then_some(expiry),
        properties,
        payload: bytes,
    };
    Some((sequence, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_same_after_the_envelope() {
        for (retain, expiry, payload) in [(true, Some(7), &b""[..]), (false, None, b"21.5")] {
            let message = Message {
                topic: Bytes::from_static(b"t/x"),
                origin: Origin(u64::MAX - 7),
                qos: 2,
                retain,
                expiry,
                properties: Bytes::from_static(&[1, 1]),
                payload: Bytes::from_static(payload),
            };
            assert_eq!(unwrap(wrap(u64::MAX - 1, &message)), Some((u64::MAX - 1, message)));
        }
    }

    #[test]
    fn short_bytes_and_wrong_lengths_are_no_message() {
        let message = Message {
            topic: Bytes::from_static(b"t/x"),
            origin: Origin(u64::MAX - 7),
            qos: 0,
            retain: false,
            expiry: None,
            properties: Bytes::from_static(&[1, 1]),
            payload: Bytes::new(),
        };
        let whole = wrap(1, &message);
        for end in 0..whole.len() {
            assert_eq!(unwrap(whole.slice(..end)), None, "{end}");
        }
    }
}
