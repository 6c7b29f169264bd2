//! The part of a session that outlives the process: changes are records of the stream `local`, committed before whatever
//! they promise is answered; `state.redb` is a checkpoint applied behind them (design section 5).
//!
//! A record's payload is a list of changes: `key length (2) | key | value length + 1, or 0 for a removal (4) | value`,
//! integers little-endian. A key that is too long for its field has 0 there and its length in four bytes behind. Keys: a
//! tag, then parts of `length (2) | bytes`; those of retained messages are [`crate::retained`]'s.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_wal::{BootId, CheckpointError, Log, NewRecord, Offset, PartitionSet, Record, Settlement, StreamId, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{SessionKey, SubscriptionOptions};
use crate::local_state::StateFile;
use crate::retained::{Retained, TAG};

/// How long the checkpoint may stay behind.
const BEHIND: Duration = Duration::from_secs(2);
/// Bytes of records read at once.
const READ_BYTES: usize = 1 << 20;
/// Where the sessions' keys begin in the checkpoint: behind those of retained messages.
const SESSIONS: &[u8] = b"a";

/// What is known of a session after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredSession {
    pub(crate) expiry_seconds: u32,
    pub(crate) detached: Option<Timestamp>,
    pub(crate) subscriptions: BTreeMap<String, SubscriptionOptions>,
    /// Packet ids of QoS 2 publishes taken in whose PUBREL has not come (MQTT-4.3.3-2).
    pub(crate) qos2: BTreeSet<u16>,
}

/// One change of the durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The session exists, with this expiry; `detached` since then, or connected.
    Session(SessionKey, u32, Option<Timestamp>),
    /// The session is gone; whatever else it had is removed by changes of its own.
    NoSession(SessionKey),
    Subscribed(SessionKey, String, SubscriptionOptions),
    Unsubscribed(SessionKey, String),
    Qos2Received(SessionKey, u16),
    Qos2Released(SessionKey, u16),
}

type Entry = (Vec<u8>, Option<Vec<u8>>);

/// Why the durable state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The checkpoint or the log failed.
    #[error("the sessions' state could not be read; if {path} is damaged, move it away: sessions begin anew, the log is untouched")]
    Storage {
        /// The checkpoint.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

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
                (session_key(b's', key, None), Some(value))
            }
            Self::NoSession(key) => (session_key(b's', key, None), None),
            Self::Subscribed(key, filter, options) => (session_key(b'f', key, Some(filter.as_bytes())), Some(options.to_bytes())),
            Self::Unsubscribed(key, filter) => (session_key(b'f', key, Some(filter.as_bytes())), None),
            Self::Qos2Received(key, id) => (session_key(b'q', key, Some(&id.to_le_bytes())), Some(Vec::new())),
            Self::Qos2Released(key, id) => (session_key(b'q', key, Some(&id.to_le_bytes())), None),
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

/// One change of the list.
pub(crate) fn write_entry(key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    match u16::try_from(key.len()) {
        Ok(length) => out.extend(length.to_le_bytes()),
        Err(_) => {
            out.extend([0, 0]);
            out.extend(u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
    }
    out.extend(key);
    let length = value.map_or(0, |value| u32::try_from(value.len() + 1).unwrap_or(u32::MAX));
    out.extend(length.to_le_bytes());
    out.extend(value.unwrap_or_default());
}

/// The `local` record that carries `payload`.
pub(crate) fn record<'a>(received: Timestamp, identity: &'a str, payload: &'a [u8]) -> NewRecord<'a> {
    NewRecord {
        stream: StreamId::LOCAL,
        received,
        identity,
        route: "",
        topic: "",
        payload,
        qos: 0,
        retain: false,
        expiry: None,
        properties: &[],
    }
}

/// Reads the checkpoint and the records behind it: the sessions, and for `retained` what it needs to know. Records that
/// the checkpoint has seen already are applied once more: a later change of a key wins, so the outcome is the same, and a
/// checkpoint that is older or newer than its log does no harm.
///
/// # Errors
/// The checkpoint or the log could not be read.
pub(crate) fn load(log: &Log, file: &StateFile, retained: &Retained) -> Result<HashMap<SessionKey, StoredSession>, StateError> {
    let failed = |error: CheckpointError| storage(file, error);
    retained.restore().map_err(failed)?;
    let mut state = BTreeMap::new();
    if let Some(checkpoint) = file.current() {
        let snapshot = checkpoint.snapshot().map_err(failed)?;
        let visit = |key: &[u8], value: &[u8]| {
            state.insert(key.to_vec(), value.to_vec());
            true
        };
        snapshot.visit_from(SESSIONS, visit).map_err(failed)?;
    }
    let mut reader = log.reader(StreamId::LOCAL, PartitionSet::ALL);
    loop {
        let records = reader.read(READ_BYTES).map_err(|error| storage(file, error))?;
        if records.is_empty() {
            break;
        }
        for (key, value) in records.iter().flat_map(|record| decode(&record.payload)) {
            match value {
                Some(value) if key.first() == Some(&TAG) => retained.restore_entry(&key, &value).map_err(failed)?,
                Some(value) => drop(state.insert(key, value)),
                None => drop(state.remove(&key)),
            }
        }
    }
    Ok(sessions(&state))
}

/// Applies `local` records to the checkpoint, a little behind, until `shutdown`. After a failed write the checkpoint is
/// opened again: what it lacks is still in the log. It is closed at the end.
pub(crate) async fn keep_behind(log: Log, file: Arc<StateFile>, retained: Arc<Retained>, shutdown: CancellationToken) {
    let mut behind = Behind {
        reader: log.reader(StreamId::LOCAL, PartitionSet::ALL),
        log,
        file,
        retained: Arc::clone(&retained),
    };
    loop {
        let last = tokio::select! {
            () = shutdown.cancelled() => true,
            () = tokio::time::sleep(BEHIND) => false,
            () = retained.pressure.notified() => false,
        };
        let applied = tokio::task::spawn_blocking(move || {
            if let Err(error) = behind.apply_all() {
                tracing::warn!(%error, "the checkpoint of sessions and retained messages is behind; their records stay in the log");
                behind.file.close();
                behind.reader.rewind();
                return (behind, false);
            }
            if last {
                behind.file.close();
            }
            (behind, true)
        })
        .await;
        let Ok((returned, is_well)) = applied else { return };
        behind = returned;
        if last {
            return;
        }
        // What cannot be written now need not be tried at once, however much waits.
        if !is_well && tokio::time::timeout(BEHIND, shutdown.cancelled()).await.is_ok() {
            return;
        }
    }
}

struct Behind {
    log: Log,
    reader: forebay_wal::Reader,
    file: Arc<StateFile>,
    retained: Arc<Retained>,
}

impl Behind {
    fn apply_all(&mut self) -> Result<(), StateError> {
        loop {
            let records = self.reader.read(READ_BYTES).map_err(|error| storage(&self.file, error))?;
            let Some(last) = records.last() else { return Ok(()) };
            let through = Offset(last.offset.0 + 1);
            self.apply(&records, through).map_err(|error| storage(&self.file, error))?;
            for record in &records {
                self.log.settle(StreamId::LOCAL, record.offset, Settlement::Delivered);
            }
        }
    }

    fn apply(&self, records: &[Record], through: Offset) -> Result<(), CheckpointError> {
        let checkpoint = self.file.reopened()?;
        let mut writes = Vec::new();
        let mut version = None;
        for (key, value) in records.iter().flat_map(|record| decode(&record.payload)) {
            if key.first() != Some(&TAG) {
                writes.push((key, value));
            } else if let Some((newer, own)) = self.retained.writes(&key, value.as_deref())? {
                version = version.max(Some(newer));
                writes.extend(own);
            }
        }
        checkpoint.apply(&writes, through)?;
        if let Some(version) = version {
            self.retained.applied(version);
        }
        Ok(())
    }
}

fn storage(file: &StateFile, error: impl std::error::Error + Send + Sync + 'static) -> StateError {
    StateError::Storage {
        path: file.path().to_owned(),
        source: Box::new(error),
    }
}

fn sessions(state: &BTreeMap<Vec<u8>, Vec<u8>>) -> HashMap<SessionKey, StoredSession> {
    let mut sessions: HashMap<SessionKey, StoredSession> = HashMap::new();
    for (key, value) in state {
        if let Some((b's', key, _)) = parse_key(key)
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
            Some((b'f', key, Some(filter))) => {
                if let (Some(session), Ok(filter), Some(options)) = (
                    sessions.get_mut(&key),
                    String::from_utf8(filter),
                    SubscriptionOptions::from_bytes(value),
                ) {
                    session.subscriptions.insert(filter, options);
                }
            }
            Some((b'q', key, Some(id))) => {
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
    let (identity, rest) = part(rest)?;
    let (client_id, rest) = part(rest)?;
    let more = if rest.is_empty() { None } else { Some(part(rest)?.0.to_vec()) };
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

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
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

/// Bytes that [`write_entry`] did not make end the list: the record's CRC has vouched for them, so there are none.
fn decode(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((key, rest)) = key(bytes) {
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            break;
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((value, rest)) = rest.split_at_checked(length.saturating_sub(1)) else {
            break;
        };
        entries.push((key.to_vec(), (length > 0).then(|| value.to_vec())));
        bytes = rest;
    }
    entries
}

fn key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes.split_first_chunk::<2>()? {
        ([0, 0], rest) => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        }
        _ => part(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (k, v) in decode(&encode(&changes)) {
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

        for (k, v) in decode(&encode(&Change::removal(&key, &expected))) {
            assert_eq!(v, None);
            state.remove(&k);
        }
        assert!(state.is_empty());
    }

    #[test]
    fn a_key_of_any_length_is_read_back() {
        let keys = [vec![b'x'; 1], vec![b'y'; 65_535], vec![b'z'; 65_536], vec![b'w'; 70_000]];
        let mut bytes = Vec::new();
        for key in &keys {
            write_entry(key, Some(b"v"), &mut bytes);
            write_entry(key, None, &mut bytes);
        }
        let expected: Vec<Entry> = keys
            .iter()
            .flat_map(|key| [(key.clone(), Some(b"v".to_vec())), (key.clone(), None)])
            .collect();
        assert_eq!(decode(&bytes), expected);
    }

    #[test]
    fn cut_bytes_never_panic() {
        let key = SessionKey {
            identity: "d1".into(),
            client_id: "c".into(),
        };
        let bytes = encode(&[Change::Session(key, 1, None)]);
        for end in 0..bytes.len() {
            decode(&bytes[..end]);
            parse_key(&bytes[..end]);
        }
    }
}
