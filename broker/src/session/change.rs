//! Changes of sessions in records of the stream `local`, and the keys of their entries.
//!
//! Keys: a tag, then parts. The session itself is `s | identity | client id`, each part with its length (2) before it; its
//! value has its number. Subscriptions are `t | number (4) | filter`, QoS 2 packet ids `u | number (4) | id (2)`: they stand
//! behind the sessions, so that a start knows each number before what belongs to it. Earlier versions wrote `f` and `q` with
//! identity and client id in place of the number; those are read, and removed with their session. Integers are little-endian.

use std::sync::Arc;

use forebay_wal::{BootId, Timestamp};

use super::{SessionKey, SubscriptionOptions};
#[cfg(test)]
use crate::local_state::Entry;
use crate::local_state::{length_prefixed, write_entry};

const SESSION: u8 = b's';
const SUBSCRIPTION: u8 = b't';
const QOS2: u8 = b'u';
const OLD_SUBSCRIPTION: u8 = b'f';
const OLD_QOS2: u8 = b'q';
/// Where the sessions' keys begin in the checkpoint: behind those of retained messages.
pub(super) const FIRST_KEY: &[u8] = b"a";
/// Bytes of one record of changes; more are cut into several records.
const MAX_RECORD: usize = 256 << 10;

/// A session in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionId {
    pub(crate) key: SessionKey,
    /// Stands for it in the keys of its parts; never used twice.
    pub(crate) number: u32,
    /// Parts of it may have the keys of an earlier version.
    pub(crate) is_old: bool,
}

/// One change of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The session exists, with this expiry; `detached` since then, or connected.
    Session(SessionId, u32, Option<Timestamp>),
    /// The session has ended. Its subscriptions and packet ids are removed by their own changes.
    NoSession(SessionId),
    Subscribed(SessionId, String, SubscriptionOptions),
    Unsubscribed(SessionId, String),
    Qos2Received(SessionId, u16),
    Qos2Released(SessionId, u16),
}

/// What a key of the checkpoint belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Session(SessionKey),
    Subscription(Of, String),
    Qos2(Of, u16),
}

/// The session of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Number(u32),
    /// In keys of an earlier version.
    Key(SessionKey),
}

/// The value of a session's own entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) expiry_seconds: u32,
    pub(super) detached: Option<Timestamp>,
    /// `None` in an entry of an earlier version.
    pub(super) number: Option<u32>,
}

impl Change {
    /// All that must be removed when a session ends, the session last: what is cut off by a kill is removed at the start.
    pub(super) fn removal<'s>(
        id: &SessionId,
        filters: impl Iterator<Item = &'s String>,
        packet_ids: impl Iterator<Item = &'s u16>,
    ) -> Vec<Self> {
        let mut changes: Vec<_> = filters.map(|filter| Self::Unsubscribed(id.clone(), filter.clone())).collect();
        changes.extend(packet_ids.map(|packet_id| Self::Qos2Released(id.clone(), *packet_id)));
        changes.push(Self::NoSession(id.clone()));
        changes
    }

    fn write(&self, out: &mut Vec<u8>) {
        let old = |id: &SessionId, tag, part: &[u8], out: &mut Vec<u8>| {
            if id.is_old {
                write_entry(&old_key(tag, &id.key, Some(part)), None, out);
            }
        };
        match self {
            Self::Session(id, expiry, detached) => {
                let head = Head {
                    expiry_seconds: *expiry,
                    detached: *detached,
                    number: Some(id.number),
                };
                write_entry(&old_key(SESSION, &id.key, None), Some(&head.to_bytes()), out);
            }
            Self::NoSession(id) => write_entry(&old_key(SESSION, &id.key, None), None, out),
            Self::Subscribed(id, filter, options) => {
                write_entry(&key(SUBSCRIPTION, id.number, filter.as_bytes()), Some(&options.to_bytes()), out);
            }
            Self::Unsubscribed(id, filter) => {
                write_entry(&key(SUBSCRIPTION, id.number, filter.as_bytes()), None, out);
                old(id, OLD_SUBSCRIPTION, filter.as_bytes(), out);
            }
            Self::Qos2Received(id, packet_id) => write_entry(&key(QOS2, id.number, &packet_id.to_le_bytes()), Some(&[]), out),
            Self::Qos2Released(id, packet_id) => {
                write_entry(&key(QOS2, id.number, &packet_id.to_le_bytes()), None, out);
                old(id, OLD_QOS2, &packet_id.to_le_bytes(), out);
            }
        }
    }
}

/// The payload of the `local` record for these few changes.
pub(crate) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    changes.iter().for_each(|change| change.write(&mut out));
    out
}

/// The payloads of the `local` records for these changes, in their order: one, unless they are too large for it.
pub(super) fn encode_parts(changes: &[Change]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    for change in changes {
        let mut entry = Vec::new();
        change.write(&mut entry);
        if !part.is_empty() && part.len() + entry.len() > MAX_RECORD {
            parts.push(std::mem::take(&mut part));
        }
        part.extend(entry);
    }
    parts.push(part);
    parts
}

impl Key {
    /// `None` if it is no key of a session.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let of_number = || {
            let (number, part) = rest.split_first_chunk::<4>()?;
            Some((Of::Number(u32::from_le_bytes(*number)), part))
        };
        let of_key = || {
            let (key, rest) = parse_key(rest)?;
            Some((Of::Key(key), length_prefixed(rest)?.0))
        };
        match *tag {
            SESSION => Some(Self::Session(parse_key(rest)?.0)),
            SUBSCRIPTION => filter(of_number()?),
            OLD_SUBSCRIPTION => filter(of_key()?),
            QOS2 => packet_id(of_number()?),
            OLD_QOS2 => packet_id(of_key()?),
            _ => None,
        }
    }

    /// Whether the key has a tag of sessions.
    pub(super) fn is_one(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(SESSION | SUBSCRIPTION | QOS2 | OLD_SUBSCRIPTION | OLD_QOS2)))
    }
}

impl Head {
    fn to_bytes(self) -> Vec<u8> {
        let mut value = self.expiry_seconds.to_le_bytes().to_vec();
        if let Some(at) = self.detached {
            value.extend(at.wall_ms.to_le_bytes());
            value.extend(at.boot.0.to_le_bytes());
            value.extend(at.monotonic_ms.to_le_bytes());
            value.push(u8::from(at.trusted));
        }
        value.extend(self.number.map(u32::to_le_bytes).into_iter().flatten());
        value
    }

    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (expiry, rest) = value.split_first_chunk::<4>()?;
        let time = timestamp(rest);
        let (detached, rest) = match time {
            Some((at, rest)) => (Some(at), rest),
            None => (None, rest),
        };
        Some(Self {
            expiry_seconds: u32::from_le_bytes(*expiry),
            detached,
            number: rest.first_chunk::<4>().map(|number| u32::from_le_bytes(*number)),
        })
    }
}

fn timestamp(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (wall, rest) = bytes.split_first_chunk::<8>()?;
    let (boot, rest) = rest.split_first_chunk::<16>()?;
    let (monotonic, rest) = rest.split_first_chunk::<8>()?;
    let (trusted, rest) = rest.split_first()?;
    let at = Timestamp {
        wall_ms: u64::from_le_bytes(*wall),
        boot: BootId(u128::from_le_bytes(*boot)),
        monotonic_ms: u64::from_le_bytes(*monotonic),
        trusted: *trusted == 1,
    };
    Some((at, rest))
}

fn filter((of, part): (Of, &[u8])) -> Option<Key> {
    Some(Key::Subscription(of, std::str::from_utf8(part).ok()?.to_owned()))
}

fn packet_id((of, part): (Of, &[u8])) -> Option<Key> {
    Some(Key::Qos2(of, u16::from_le_bytes(part.try_into().ok()?)))
}

fn key(tag: u8, number: u32, part: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend(number.to_le_bytes());
    out.extend(part);
    out
}

fn old_key(tag: u8, key: &SessionKey, part: Option<&[u8]>) -> Vec<u8> {
    let mut out = vec![tag];
    for part in [Some(key.identity.as_bytes()), Some(key.client_id.as_bytes()), part]
        .into_iter()
        .flatten()
    {
        out.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(part);
    }
    out
}

fn parse_key(bytes: &[u8]) -> Option<(SessionKey, &[u8])> {
    let (identity, rest) = length_prefixed(bytes)?;
    let (client_id, rest) = length_prefixed(rest)?;
    let text = |bytes: &[u8]| Some(Arc::<str>::from(std::str::from_utf8(bytes).ok()?));
    let key = SessionKey {
        identity: text(identity)?,
        client_id: text(client_id)?,
    };
    Some((key, rest))
}

/// An entry as an earlier version wrote it.
#[cfg(test)]
pub(super) fn old_entry(change: &Change) -> Option<Entry> {
    let part = |tag, id: &SessionId, part: &[u8], value| Some((old_key(tag, &id.key, Some(part)), Some(value)));
    match change {
        Change::Session(id, expiry_seconds, detached) => {
            let head = Head {
                expiry_seconds: *expiry_seconds,
                detached: *detached,
                number: None,
            };
            Some((old_key(SESSION, &id.key, None), Some(head.to_bytes())))
        }
        Change::Subscribed(id, filter, options) => part(OLD_SUBSCRIPTION, id, filter.as_bytes(), options.to_bytes()),
        Change::Qos2Received(id, packet_id) => part(OLD_QOS2, id, &packet_id.to_le_bytes(), Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SessionId {
        SessionId {
            key: SessionKey {
                identity: "d1".into(),
                client_id: "c".into(),
            },
            number: 7,
            is_old: true,
        }
    }

    #[test]
    fn cut_bytes_never_panic() {
        let options = SubscriptionOptions {
            qos: 1,
            no_local: true,
            retain_as_published: false,
            subscription_id: Some(9),
        };
        for change in [
            Change::Session(id(), 1, None),
            Change::Subscribed(id(), "a/#".to_owned(), options),
            Change::Qos2Received(id(), 9),
        ] {
            let mut entries = crate::local_state::read_entries(&encode(std::slice::from_ref(&change)));
            entries.extend(old_entry(&change));
            for (key, value) in entries {
                assert!(Key::parse(&key).is_some() && Key::is_one(&key));
                for end in 0..key.len() {
                    Key::parse(&key[..end]);
                }
                for end in 0..value.as_ref().map_or(0, Vec::len) {
                    Head::parse(&value.as_deref().unwrap()[..end]);
                }
            }
        }
        for end in 0..64 {
            Head::parse(&[0; 64][..end]);
        }
    }

    /// A session of an earlier version with all packet ids that there are, and long names.
    #[test]
    fn a5_no_removal_has_a_record_above_the_bound_and_the_session_goes_last() {
        let long = SessionId {
            key: SessionKey {
                identity: "i".repeat(128).into(),
                client_id: "c".repeat(256).into(),
            },
            ..id()
        };
        let ids: Vec<u16> = (1..=u16::MAX).collect();
        let filters: Vec<String> = (0..100).map(|number| format!("{number}/{}", "f".repeat(60_000))).collect();
        let changes = Change::removal(&long, filters.iter(), ids.iter());
        let parts = encode_parts(&changes);
        assert!(parts.len() > 10);
        assert!(parts.iter().all(|part| part.len() <= MAX_RECORD));
        let entries: Vec<_> = parts.iter().flat_map(|part| crate::local_state::read_entries(part)).collect();
        assert_eq!(entries.len(), 2 * (ids.len() + filters.len()) + 1);
        assert!(entries.iter().all(|(_, value)| value.is_none()));
        assert!(matches!(Key::parse(&entries.last().unwrap().0), Some(Key::Session(_))));
        assert_eq!(encode_parts(&changes[changes.len() - 2..]).len(), 1);
    }
}
