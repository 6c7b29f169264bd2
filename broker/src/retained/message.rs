//! A retained message, and its bytes: in a record of `local` and in the checkpoint.
//!
//! In a record of `local` (integers little-endian): key `r | topic`, value `head | properties | payload`, or only the
//! version when the message is removed. Head: `version (8) | wall (8) | boot (16) | monotonic (8) | flags (1) | expiry (4) |
//! properties length (4) | payload length (4) | identity length (1) | identity`. Flags: bits 0-1 QoS, bit 2 clock trusted,
//! bit 3 expiry present.
//!
//! In the checkpoint the two halves have keys of their own, so that a search for topics reads no payloads: `M | topic` has the head,
//! `P | topic` properties and payload.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_wal::{BootId, Timestamp, Write};

/// Marks the key of a change in a record of `local`.
pub(super) const TAG: u8 = b'r';
/// Marks the keys of heads in the checkpoint.
pub(super) const HEAD: u8 = b'M';
/// Marks the keys of properties and payloads in the checkpoint.
const BODY: u8 = b'P';

const TRUSTED: u8 = 1 << 2;
const EXPIRY: u8 = 1 << 3;

/// The retained message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetainedMessage {
    pub(crate) topic: Arc<str>,
    pub(crate) head: Head,
    pub(crate) properties: Bytes,
    pub(crate) payload: Bytes,
}

/// A message without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Increases with every change of any topic.
    pub(crate) version: u64,
    pub(crate) received: Timestamp,
    pub(crate) qos: u8,
    pub(crate) expiry: Option<u32>,
    pub(crate) properties_len: usize,
    pub(crate) payload_len: usize,
    /// The identity that published it.
    pub(crate) identity: Arc<str>,
}

/// A change of a topic's message, as in a record of `local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Set(RetainedMessage),
    /// The topic has no message any more, as of this version.
    Removed(u64),
}

impl Head {
    /// The seconds until it expires; `Err` if it has expired. A message whose age cannot be proved does not expire.
    pub(crate) fn remaining(&self, now: &Timestamp) -> Result<Option<u32>, Expired> {
        self.remaining_from(&self.received, now)
    }

    /// Whether it has expired. What was received in an earlier boot by a clock that proves nothing counts from `since`, the first trusted
    /// moment of this process: otherwise it would stay for good.
    pub(crate) fn is_over(&self, now: &Timestamp, since: Option<&Timestamp>) -> bool {
        let received = since.map_or(self.received, |since| self.received.or_since(since));
        self.remaining_from(&received, now).is_err()
    }

    fn remaining_from(&self, received: &Timestamp, now: &Timestamp) -> Result<Option<u32>, Expired> {
        let Some(expiry) = self.expiry else { return Ok(None) };
        let age = received.age(now).unwrap_or(Duration::ZERO).as_secs();
        let left = u64::from(expiry).checked_sub(age).filter(|left| *left > 0).ok_or(Expired)?;
        Ok(u32::try_from(left).ok())
    }

    /// The bytes that the message counts for in the bounds.
    pub(crate) fn bytes(&self, topic: &str) -> usize {
        topic.len() + self.properties_len + self.payload_len
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.version.to_le_bytes());
        out.extend(self.received.wall_ms.to_le_bytes());
        out.extend(self.received.boot.0.to_le_bytes());
        out.extend(self.received.monotonic_ms.to_le_bytes());
        let trusted = if self.received.trusted { TRUSTED } else { 0 };
        out.push(self.qos & 3 | trusted | if self.expiry.is_some() { EXPIRY } else { 0 });
        out.extend(self.expiry.unwrap_or(0).to_le_bytes());
        out.extend(u32::try_from(self.properties_len).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(u32::try_from(self.payload_len).unwrap_or(u32::MAX).to_le_bytes());
        // An identity has at most 128 bytes.
        out.push(u8::try_from(self.identity.len()).unwrap_or(u8::MAX));
        out.extend(self.identity.as_bytes());
    }

    /// The head, and the bytes after it.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (wall, rest) = rest.split_first_chunk()?;
        let (boot, rest) = rest.split_first_chunk()?;
        let (monotonic, rest) = rest.split_first_chunk()?;
        let (&flags, rest) = rest.split_first()?;
        let (expiry, rest) = rest.split_first_chunk()?;
        let (properties, rest) = rest.split_first_chunk()?;
        let (payload, rest) = rest.split_first_chunk()?;
        let (&identity, rest) = rest.split_first()?;
        let (identity, rest) = rest.split_at_checked(usize::from(identity))?;
        let head = Self {
            version: u64::from_le_bytes(*version),
            received: Timestamp {
                wall_ms: u64::from_le_bytes(*wall),
                boot: BootId(u128::from_le_bytes(*boot)),
                monotonic_ms: u64::from_le_bytes(*monotonic),
                trusted: flags & TRUSTED != 0,
            },
            qos: flags & 3,
            expiry: (flags & EXPIRY != 0).then_some(u32::from_le_bytes(*expiry)),
            properties_len: u32::from_le_bytes(*properties) as usize,
            payload_len: u32::from_le_bytes(*payload) as usize,
            identity: std::str::from_utf8(identity).ok()?.into(),
        };
        Some((head, rest))
    }
}

/// The message has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired;

impl RetainedMessage {
    /// From the two halves of the checkpoint.
    pub(super) fn join(topic: Arc<str>, head: Head, body: Bytes) -> Option<Self> {
        if body.len() != head.properties_len + head.payload_len {
            return None;
        }
        let mut payload = body;
        let properties = payload.split_to(head.properties_len);
        Some(Self {
            topic,
            head,
            properties,
            payload,
        })
    }
}

impl Change {
    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Set(message) => message.head.version,
            Self::Removed(version) => *version,
        }
    }

    /// The value of its entry in a record of `local`.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Set(message) => {
                let mut out = Vec::with_capacity(64 + message.head.identity.len() + message.properties.len() + message.payload.len());
                message.head.write(&mut out);
                out.extend(&message.properties);
                out.extend(&message.payload);
                out
            }
            Self::Removed(version) => version.to_le_bytes().to_vec(),
        }
    }

    /// `None` for bytes that [`Change::encode`] did not make.
    pub(crate) fn decode(topic: &str, value: &[u8]) -> Option<Self> {
        if let Ok(version) = value.try_into() {
            return Some(Self::Removed(u64::from_le_bytes(version)));
        }
        let (head, body) = Head::parse(value)?;
        RetainedMessage::join(topic.into(), head, Bytes::copy_from_slice(body)).map(Self::Set)
    }

    /// What it writes into the checkpoint.
    pub(super) fn writes(&self, topic: &str) -> [Write; 2] {
        let (head, body) = match self {
            Self::Set(message) => {
                let mut head = Vec::new();
                message.head.write(&mut head);
                (Some(head), Some([&message.properties[..], &message.payload].concat()))
            }
            Self::Removed(_) => (None, None),
        };
        [(key(HEAD, topic.as_bytes()), head), (key(BODY, topic.as_bytes()), body)]
    }
}

/// The key of a topic's body in the checkpoint.
pub(super) fn body_key(topic: &str) -> Vec<u8> {
    key(BODY, topic.as_bytes())
}

/// The key of a topic's head in the checkpoint.
pub(super) fn head_key(topic: &[u8]) -> Vec<u8> {
    key(HEAD, topic)
}

pub(super) fn key(tag: u8, topic: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + topic.len());
    out.push(tag);
    out.extend(topic);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> RetainedMessage {
        RetainedMessage {
            topic: "a/ü".into(),
            head: Head {
                version: 7,
                received: Timestamp {
                    wall_ms: 1_000_000,
                    boot: BootId(2),
                    monotonic_ms: 3_000,
                    trusted: true,
                },
                qos: 1,
                expiry: Some(10),
                properties_len: 2,
                payload_len: 3,
                identity: "d1".into(),
            },
            properties: Bytes::from_static(&[1, 1]),
            payload: Bytes::from_static(b"abc"),
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let set = Change::Set(message());
        assert_eq!(Change::decode("a/ü", &set.encode()), Some(set.clone()));
        let removed = Change::Removed(9);
        assert_eq!(Change::decode("a/ü", &removed.encode()), Some(removed.clone()));

        let [(head_at, Some(head)), (body_at, Some(body))] = set.writes("a/ü") else {
            panic!("a message has both halves")
        };
        assert_eq!((head_at, body_at), (head_key("a/ü".as_bytes()), body_key("a/ü")));
        let (head, rest) = Head::parse(&head).unwrap();
        assert!(rest.is_empty());
        assert_eq!(RetainedMessage::join("a/ü".into(), head, body.into()), Some(message()));
        assert!(removed.writes("a/ü").iter().all(|(_, value)| value.is_none()));
    }

    #[test]
    fn cut_bytes_are_no_change_and_never_panic() {
        let bytes = Change::Set(message()).encode();
        for end in 0..bytes.len() {
            let cut = Change::decode("a", &bytes[..end]);
            assert!(matches!(cut, None | Some(Change::Removed(_))), "{end}");
        }
    }

    #[test]
    fn only_a_proved_age_takes_from_the_expiry() {
        let head = message().head;
        let after = |ms: u64| Timestamp {
            wall_ms: head.received.wall_ms + ms,
            monotonic_ms: head.received.monotonic_ms + ms,
            ..head.received
        };
        assert_eq!(head.remaining(&after(0)), Ok(Some(10)));
        assert_eq!(head.remaining(&after(4_999)), Ok(Some(6)));
        assert_eq!(head.remaining(&after(9_999)), Ok(Some(1)));
        assert_eq!(head.remaining(&after(10_000)), Err(Expired));
        let rebooted = |trusted| Timestamp {
            boot: BootId(5),
            monotonic_ms: 0,
            trusted,
            ..after(60_000)
        };
        assert_eq!(head.remaining(&rebooted(false)), Ok(Some(10)));
        assert_eq!(head.remaining(&rebooted(true)), Err(Expired));
    }

    #[test]
    fn what_carries_a_time_that_proves_nothing_goes_after_its_expiry_since_the_first_trusted_moment() {
        let mut head = message().head;
        let began = head.received.wall_ms;
        let trusted = |seconds: u64| Timestamp {
            wall_ms: began + seconds * 1000,
            boot: BootId(5),
            monotonic_ms: seconds * 1000,
            trusted: true,
        };
        for (wall_ms, is_trusted) in [(5_000, false), (4_070_908_800_000, true)] {
            (head.received.wall_ms, head.received.trusted) = (wall_ms, is_trusted);
            assert!(!head.is_over(&trusted(11), None), "{wall_ms}: late beats lost");
            assert!(!head.is_over(&trusted(9), Some(&trusted(0))), "{wall_ms}");
            assert!(head.is_over(&trusted(11), Some(&trusted(0))), "{wall_ms}");
        }
    }
}
