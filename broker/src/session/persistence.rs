//! The part of a session that outlives the process: its entries in the local state.
//!
//! Keys: a tag, then parts of `length (2) | bytes`: identity and client id, and for a subscription its filter (`f`), for a
//! QoS 2 packet id its number (`q`); the session itself is `s`. Integers are little-endian.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_wal::{BootId, Checkpoint, CheckpointError, Timestamp, Write};

use super::{SessionKey, SubscriptionOptions};
use crate::local_state::{Entry, Follower, length_prefixed, write_entry};

const SESSION: u8 = b's';
const SUBSCRIPTION: u8 = b'f';
const QOS2: u8 = b'q';
/// Where the sessions' keys begin in the checkpoint: behind those of retained messages.
const FIRST_KEY: &[u8] = b"a";

/// A session after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredSession {
    pub(crate) expiry_seconds: u32,
    pub(crate) detached: Option<Timestamp>,
    pub(crate) subscriptions: BTreeMap<String, SubscriptionOptions>,
    /// Packet ids of QoS 2 publishes that were accepted and not released by PUBREL (MQTT-4.3.3-2).
    pub(crate) qos2: BTreeSet<u16>,
}

/// One change of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The session exists, with this expiry; `detached` since then, or connected.
    Session(SessionKey, u32, Option<Timestamp>),
    /// The session has ended. Its subscriptions and packet ids are removed by their own changes.
    NoSession(SessionKey),
    Subscribed(SessionKey, String, SubscriptionOptions),
    Unsubscribed(SessionKey, String),
    Qos2Received(SessionKey, u16),
    Qos2Released(SessionKey, u16),
}

/// All stored sessions while they are restored, and their way into the checkpoint afterwards.
#[derive(Debug, Default)]
pub(crate) struct StoredSessions(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Change {
    /// All that must be removed when a session ends.
    pub(crate) fn removal(key: &SessionKey, session: &StoredSession) -> Vec<Self> {
        let mut changes = vec![Self::NoSession(key.clone())];
        changes.extend(
            session
                .subscriptions
                .keys()
                .map(|filter| Self::Unsubscribed(key.clone(), filter.clone())),
        );
        changes.extend(session.qos2.iter().map(|id| Self::Qos2Released(key.clone(), *id)));
        changes
    }

    fn entry(&self) -> Entry {
        match self {
            Self::Session(key, expiry, detached) => {
                let mut value = expiry.to_le_bytes().to_vec();
                if let Some(at) = detached {
                    value.extend(at.wall_ms.to_le_bytes());
                    value.extend(at.boot.0.to_le_bytes());
                    value.extend(at.monotonic_ms.to_le_bytes());
                    value.push(u8::from(at.trusted));
                }
                (session_key(SESSION, key, None), Some(value))
            }
            Self::NoSession(key) => (session_key(SESSION, key, None), None),
            Self::Subscribed(key, filter, options) => (session_key(SUBSCRIPTION, key, Some(filter.as_bytes())), Some(options.to_bytes())),
            Self::Unsubscribed(key, filter) => (session_key(SUBSCRIPTION, key, Some(filter.as_bytes())), None),
            Self::Qos2Received(key, id) => (session_key(QOS2, key, Some(&id.to_le_bytes())), Some(Vec::new())),
            Self::Qos2Released(key, id) => (session_key(QOS2, key, Some(&id.to_le_bytes())), None),
        }
    }
}

/// The payload of the `local` record for these changes.
pub(crate) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut out = Vec::new();
    for change in changes {
        let (key, value) = change.entry();
        write_entry(&key, value.as_deref(), &mut out);
    }
    out
}

impl StoredSessions {
    /// Takes out what was restored.
    pub(crate) fn take(&self) -> HashMap<SessionKey, StoredSession> {
        sessions(&std::mem::take(&mut *self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for StoredSessions {
    fn owns(&self, key: &[u8]) -> bool {
        matches!(key.first(), Some(&(SESSION | SUBSCRIPTION | QOS2)))
    }

    fn restore(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut state = self.lock();
        checkpoint.snapshot()?.visit_from(FIRST_KEY, |key, value| {
            if self.owns(key) {
                state.insert(key.to_vec(), value.to_vec());
            }
            true
        })
    }

    fn restore_entry(&self, (key, value): Entry, _checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut state = self.lock();
        match value {
            Some(value) => drop(state.insert(key, value)),
            None => drop(state.remove(&key)),
        }
        Ok(())
    }

    /// An entry in the log is the same in the checkpoint.
    fn writes(&self, entries: Vec<Entry>, _checkpoint: &Checkpoint, out: &mut Vec<Write>) -> Result<u64, CheckpointError> {
        out.extend(entries);
        Ok(0)
    }
}

fn sessions(state: &BTreeMap<Vec<u8>, Vec<u8>>) -> HashMap<SessionKey, StoredSession> {
    let mut sessions: HashMap<SessionKey, StoredSession> = HashMap::new();
    for (key, value) in state {
        if let Some((SESSION, key, _)) = parse_key(key)
            && let Some((expiry_seconds, detached)) = parse_session(value)
        {
            sessions.insert(
                key,
                StoredSession {
                    expiry_seconds,
                    detached,
                    ..StoredSession::default()
                },
            );
        }
    }
    for (key, value) in state {
        match parse_key(key) {
            Some((SUBSCRIPTION, key, Some(filter))) => {
                if let (Some(session), Ok(filter), Some(options)) = (
                    sessions.get_mut(&key),
                    String::from_utf8(filter),
                    SubscriptionOptions::from_bytes(value),
                ) {
                    session.subscriptions.insert(filter, options);
                }
            }
            Some((QOS2, key, Some(id))) => {
                if let (Some(session), Ok(id)) = (sessions.get_mut(&key), <[u8; 2]>::try_from(id.as_slice())) {
                    session.qos2.insert(u16::from_le_bytes(id));
                }
            }
            _ => {}
        }
    }
    sessions
}

fn session_key(tag: u8, key: &SessionKey, more: Option<&[u8]>) -> Vec<u8> {
    let mut out = vec![tag];
    for part in [Some(key.identity.as_bytes()), Some(key.client_id.as_bytes()), more]
        .into_iter()
        .flatten()
    {
        out.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(part);
    }
    out
}

fn parse_key(bytes: &[u8]) -> Option<(u8, SessionKey, Option<Vec<u8>>)> {
    let (tag, rest) = bytes.split_first()?;
    let (identity, rest) = length_prefixed(rest)?;
    let (client_id, rest) = length_prefixed(rest)?;
    let more = if rest.is_empty() {
        None
    } else {
        Some(length_prefixed(rest)?.0.to_vec())
    };
    let text = |bytes: &[u8]| Some(Arc::<str>::from(std::str::from_utf8(bytes).ok()?));
    Some((
        *tag,
        SessionKey {
            identity: text(identity)?,
            client_id: text(client_id)?,
        },
        more,
    ))
}

fn parse_session(value: &[u8]) -> Option<(u32, Option<Timestamp>)> {
    let (expiry, rest) = value.split_first_chunk::<4>()?;
    let detached = (|| {
        let (wall, rest) = rest.split_first_chunk::<8>()?;
        let (boot, rest) = rest.split_first_chunk::<16>()?;
        let (monotonic, rest) = rest.split_first_chunk::<8>()?;
        Some(Timestamp {
            wall_ms: u64::from_le_bytes(*wall),
            boot: BootId(u128::from_le_bytes(*boot)),
            monotonic_ms: u64::from_le_bytes(*monotonic),
            trusted: rest.first() == Some(&1),
        })
    })();
    Some((u32::from_le_bytes(*expiry), detached))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_state::read_entries;

    #[test]
    fn what_is_encoded_is_what_is_restored() {
        let key = SessionKey {
            identity: "d1".into(),
            client_id: "client/α".into(),
        };
        let at = Timestamp {
            wall_ms: 1,
            boot: BootId(2),
            monotonic_ms: 3,
            trusted: true,
        };
        let options = SubscriptionOptions {
            qos: 1,
            no_local: true,
            retain_as_published: false,
            subscription_id: Some(9),
        };
        let long = "l".repeat(65_535);
        let changes = [
            Change::Session(key.clone(), 60, Some(at)),
            Change::Subscribed(key.clone(), "a/#".to_owned(), options),
            Change::Subscribed(key.clone(), long.clone(), options),
            Change::Subscribed(key.clone(), "b".to_owned(), options),
            Change::Unsubscribed(key.clone(), "b".to_owned()),
            Change::Qos2Received(key.clone(), 7),
            Change::Qos2Received(key.clone(), 8),
            Change::Qos2Released(key.clone(), 7),
        ];
        let mut state = BTreeMap::new();
        for (k, v) in read_entries(&encode(&changes)) {
            match v {
                Some(v) => state.insert(k, v),
                None => state.remove(&k),
            };
        }
        let expected = StoredSession {
            expiry_seconds: 60,
            detached: Some(at),
            subscriptions: BTreeMap::from([("a/#".to_owned(), options), (long, options)]),
            qos2: BTreeSet::from([8]),
        };
        assert_eq!(sessions(&state), HashMap::from([(key.clone(), expected.clone())]));

        for (k, v) in read_entries(&encode(&Change::removal(&key, &expected))) {
            assert_eq!(v, None);
            state.remove(&k);
        }
        assert!(state.is_empty());
    }

    #[test]
    fn cut_bytes_never_panic() {
        let key = SessionKey {
            identity: "d1".into(),
            client_id: "c".into(),
        };
        let (key, value) = Change::Session(key, 1, None).entry();
        for end in 0..key.len() {
            assert_eq!(parse_key(&key[..end]), None);
        }
        for end in 0..value.unwrap().len() {
            parse_session(&[0; 64][..end]);
        }
    }
}
