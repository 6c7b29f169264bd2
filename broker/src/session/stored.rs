//! The sessions of the checkpoint and the log at a start, within the bounds, and their way into the checkpoint afterwards.
//!
//! Entries come one by one, sessions before their parts, so that a start needs no more memory than the sessions that it
//! keeps. What is over a bound, or belongs to no session, is dropped, counted, and removed from the checkpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_wal::{Checkpoint, CheckpointError, Timestamp, Write};

use super::change::{FIRST_KEY, Head, Key, Of, SessionId};
use super::{PACKET_ID_BYTES, SessionKey, SubscriptionOptions, subscription_bytes};
use crate::budget::{Budget, Charge, Owner};
use crate::limits::Limits;
use crate::local_state::{Entry, Follower};
use crate::observe::{DroppedSession, Stats};

/// Bytes of keys that are removed from the checkpoint at once.
const REMOVED_BYTES: usize = 1 << 20;

/// A session after a restart.
#[derive(Debug)]
pub(crate) struct StoredSession {
    pub(crate) id: SessionId,
    pub(crate) expiry_seconds: u32,
    pub(crate) detached: Option<Timestamp>,
    pub(crate) subscriptions: BTreeMap<String, SubscriptionOptions>,
    /// Packet ids of QoS 2 publishes that were accepted and not released by PUBREL (MQTT-4.3.3-2).
    pub(crate) qos2: BTreeSet<u16>,
    /// What its parts are charged as.
    pub(crate) bytes: Charge,
    /// Its own entry was read, and not only parts of it.
    exists: bool,
}

/// All stored sessions while they are restored, and their way into the checkpoint afterwards.
pub(crate) struct StoredSessions {
    state: Mutex<State>,
    budget: Arc<Budget>,
    stats: Arc<Stats>,
    fixed_words: Vec<String>,
    max_sessions: usize,
    max_subscriptions: usize,
    max_packet_ids: usize,
    max_bytes: u64,
}

#[derive(Default)]
struct State {
    sessions: HashMap<SessionKey, StoredSession>,
    by_number: HashMap<u32, SessionKey>,
    /// The highest number that was seen.
    last_number: u32,
}

impl StoredSessions {
    pub(crate) fn new(limits: &Limits, budget: Arc<Budget>, stats: Arc<Stats>, fixed_words: Vec<String>) -> Self {
        Self {
            state: Mutex::default(),
            budget,
            stats,
            fixed_words,
            max_sessions: limits.max_sessions(),
            max_subscriptions: limits.max_subscriptions,
            max_packet_ids: usize::from(limits.max_in_flight),
            max_bytes: limits.max_session_bytes,
        }
    }

    /// Takes out what was restored, and the highest number that was given.
    pub(crate) fn take(&self) -> (Vec<StoredSession>, u32) {
        let mut state = std::mem::take(&mut *self.lock());
        // Numbers for the sessions of an earlier version.
        for session in state.sessions.values_mut().filter(|session| session.id.number == 0) {
            state.last_number = state.last_number.saturating_add(1);
            session.id.number = state.last_number;
        }
        let sessions: Vec<_> = state.sessions.into_values().collect();
        let (sessions, parts): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|session| session.exists);
        for _ in parts {
            self.stats.drop_session(DroppedSession::AtStart);
        }
        (sessions, state.last_number)
    }

    /// Takes an entry over; false if it is dropped, because it belongs to nothing or is over a bound.
    fn take_entry(&self, key: &[u8], value: Option<&[u8]>) -> bool {
        let mut state = self.lock();
        let taken = match (Key::parse(key), value) {
            (Some(Key::Session(key)), Some(value)) => Head::parse(value).is_some_and(|head| self.session(&mut state, key, head)),
            (Some(Key::Session(key)), None) => {
                if let Some(session) = state.sessions.remove(&key) {
                    state.by_number.remove(&session.id.number);
                }
                true
            }
            (Some(Key::Subscription(of, filter)), value) => self.subscription(&mut state, of, filter, value),
            (Some(Key::Qos2(of, id)), value) => self.packet_id(&mut state, of, id, value.is_some()),
            (None, _) => false,
        };
        drop(state);
        if !taken && value.is_some() {
            self.stats.drop_session(DroppedSession::AtStart);
        }
        taken
    }

    fn session(&self, state: &mut State, key: SessionKey, head: Head) -> bool {
        let number = head.number.unwrap_or(0);
        state.last_number = state.last_number.max(number);
        let is_known = state.sessions.contains_key(&key);
        if !is_known && state.sessions.len() >= self.max_sessions {
            return false;
        }
        if number > 0 {
            state.by_number.insert(number, key.clone());
        }
        let session = state.sessions.entry(key.clone()).or_insert_with(|| self.empty(key));
        session.exists = true;
        session.expiry_seconds = head.expiry_seconds;
        session.detached = head.detached;
        if number > 0 && session.id.number != number {
            state.by_number.remove(&std::mem::replace(&mut session.id.number, number));
        }
        true
    }

    fn subscription(&self, state: &mut State, of: Of, filter: String, value: Option<&[u8]>) -> bool {
        let Some(session) = self.session_of(state, of, value.is_some()) else {
            return value.is_none();
        };
        let bytes = subscription_bytes(&filter);
        let Some(value) = value else {
            if session.subscriptions.remove(&filter).is_some() {
                session.bytes.shrink(bytes);
            }
            return true;
        };
        let Some(options) = SubscriptionOptions::from_bytes(value) else {
            return false;
        };
        if !session.subscriptions.contains_key(&filter)
            && (session.subscriptions.len() >= self.max_subscriptions || !session.grow(bytes, self.max_bytes))
        {
            return false;
        }
        session.subscriptions.insert(filter, options);
        true
    }

    fn packet_id(&self, state: &mut State, of: Of, id: u16, is_set: bool) -> bool {
        let Some(session) = self.session_of(state, of, is_set) else {
            return !is_set;
        };
        if !is_set {
            if session.qos2.remove(&id) {
                session.bytes.shrink(PACKET_ID_BYTES);
            }
            return true;
        }
        if !session.qos2.contains(&id) && (session.qos2.len() >= self.max_packet_ids || !session.grow(PACKET_ID_BYTES, self.max_bytes)) {
            return false;
        }
        session.qos2.insert(id);
        true
    }

    /// The session of a part; of an earlier version's part it may come later.
    fn session_of<'s>(&self, state: &'s mut State, of: Of, is_set: bool) -> Option<&'s mut StoredSession> {
        match of {
            Of::Number(number) => {
                state.last_number = state.last_number.max(number);
                let key = state.by_number.get(&number)?;
                state.sessions.get_mut(key)
            }
            Of::Key(key) => {
                if is_set && !state.sessions.contains_key(&key) && state.sessions.len() < self.max_sessions {
                    let empty = self.empty(key.clone());
                    state.sessions.insert(key.clone(), empty);
                }
                let session = state.sessions.get_mut(&key)?;
                session.id.is_old = true;
                Some(session)
            }
        }
    }

    fn empty(&self, key: SessionKey) -> StoredSession {
        let is_fixed_word = self.fixed_words.iter().any(|word| **word == *key.identity);
        StoredSession {
            bytes: self.budget.session_bytes.open(Owner::of(&key.identity, is_fixed_word)),
            id: SessionId {
                key,
                number: 0,
                is_old: false,
            },
            expiry_seconds: 0,
            detached: None,
            subscriptions: BTreeMap::new(),
            qos2: BTreeSet::new(),
            exists: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredSession {
    fn grow(&mut self, bytes: u64, max_bytes: u64) -> bool {
        self.bytes.amount() + bytes <= max_bytes && self.bytes.grow(bytes).is_ok()
    }
}

impl Follower for StoredSessions {
    fn owns(&self, key: &[u8]) -> bool {
        Key::is_one(key)
    }

    fn restore(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut removed = Removed::default();
        let mut failed = Ok(());
        checkpoint.snapshot()?.visit_from(FIRST_KEY, |key, value| {
            if self.owns(key) && !self.take_entry(key, Some(value)) {
                failed = removed.add(key, checkpoint);
            }
            failed.is_ok()
        })?;
        failed?;
        removed.apply(checkpoint)
    }

    fn restore_entry(&self, (key, value): Entry, _checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.take_entry(&key, value.as_deref());
        Ok(())
    }

    /// An entry in the log is the same in the checkpoint.
    fn writes(&self, entries: Vec<Entry>, _checkpoint: &Checkpoint, out: &mut Vec<Write>) -> Result<u64, CheckpointError> {
        out.extend(entries);
        Ok(0)
    }
}

/// Keys that are to be removed from the checkpoint.
#[derive(Default)]
struct Removed {
    writes: Vec<Write>,
    bytes: usize,
}

impl Removed {
    fn add(&mut self, key: &[u8], checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.bytes += key.len();
        self.writes.push((key.to_vec(), None));
        if self.bytes < REMOVED_BYTES {
            return Ok(());
        }
        self.apply(checkpoint)
    }

    fn apply(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        if self.writes.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        checkpoint.apply(&std::mem::take(&mut self.writes), checkpoint.applied())
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::{Change, encode, old_entry};
    use super::*;
    use crate::local_state::read_entries;

    const OPTIONS: SubscriptionOptions = SubscriptionOptions {
        qos: 1,
        no_local: true,
        retain_as_published: false,
        subscription_id: Some(9),
    };

    fn stored(limits: &Limits) -> (StoredSessions, Arc<Stats>) {
        let stats = Arc::<Stats>::default();
        let budget = Arc::new(Budget::new(limits));
        (StoredSessions::new(limits, budget, Arc::clone(&stats), vec![]), stats)
    }

    fn id(number: u32) -> SessionId {
        SessionId {
            key: SessionKey {
                identity: "d1".into(),
                client_id: format!("client/α{number}").into(),
            },
            number,
            is_old: false,
        }
    }

    fn read(stored: &StoredSessions, changes: &[Change]) {
        for (key, value) in read_entries(&encode(changes)) {
            stored.take_entry(&key, value.as_deref());
        }
    }

    #[test]
    fn what_is_encoded_is_what_is_restored() {
        let at = Timestamp {
            wall_ms: 1,
            boot: forebay_wal::BootId(2),
            monotonic_ms: 3,
            trusted: true,
        };
        let (stored, stats) = stored(&Limits::default());
        read(
            &stored,
            &[
                Change::Session(id(5), 60, Some(at)),
                Change::Subscribed(id(5), "a/#".to_owned(), OPTIONS),
                Change::Subscribed(id(5), "b".to_owned(), OPTIONS),
                Change::Unsubscribed(id(5), "b".to_owned()),
                Change::Qos2Received(id(5), 7),
                Change::Qos2Received(id(5), 8),
                Change::Qos2Released(id(5), 7),
                Change::Session(id(6), 60, None),
                Change::Subscribed(id(6), "c".to_owned(), OPTIONS),
            ],
        );
        let filter = "c".to_owned();
        read(&stored, &Change::removal(&id(6), [&filter].into_iter(), [].iter()));
        let (sessions, last) = stored.take();
        assert_eq!((sessions.len(), last), (1, 6));
        let session = &sessions[0];
        assert_eq!((&session.id, session.expiry_seconds, session.detached), (&id(5), 60, Some(at)));
        assert_eq!(session.subscriptions, BTreeMap::from([("a/#".to_owned(), OPTIONS)]));
        assert_eq!(session.qos2, BTreeSet::from([8]));
        assert_eq!(session.bytes.amount(), subscription_bytes("a/#") + PACKET_ID_BYTES);
        assert_eq!(stats.dropped_sessions(DroppedSession::AtStart), 0);
    }

    #[test]
    fn a_session_of_an_earlier_version_is_read_and_removed_whole() {
        let (stored, stats) = stored(&Limits::default());
        let changes = [
            Change::Subscribed(id(0), "a".to_owned(), OPTIONS),
            Change::Qos2Received(id(0), 3),
            Change::Session(id(0), 60, None),
        ];
        let mut state: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (key, value) in changes.iter().filter_map(old_entry) {
            state.insert(key, value.unwrap());
        }
        for (key, value) in &state {
            assert!(stored.take_entry(key, Some(value)));
        }
        let (mut sessions, last) = stored.take();
        let session = sessions.remove(0);
        assert_eq!((session.id.number, last, session.id.is_old), (1, 1, true));
        assert_eq!((session.subscriptions.len(), session.qos2.len()), (1, 1));
        for (key, value) in read_entries(&encode(&Change::removal(
            &session.id,
            session.subscriptions.keys(),
            session.qos2.iter(),
        ))) {
            assert_eq!(value, None);
            state.remove(&key);
        }
        assert!(state.is_empty(), "{state:?}");
        assert_eq!(stats.dropped_sessions(DroppedSession::AtStart), 0);
    }

    /// Too many sessions, filters, packet ids and bytes, of each alone and together, in a real checkpoint.
    #[test]
    fn a4_what_is_over_a_bound_at_a_start_is_dropped_counted_and_removed() {
        for (sessions, filters, length, ids) in [(12, 1, 10, 0), (2, 150, 10, 0), (2, 0, 0, 300), (8, 90, 900, 200)] {
            let folder = tempfile::tempdir().unwrap();
            let checkpoint = Checkpoint::open(&folder.path().join("state.redb")).unwrap();
            let limits = Limits {
                max_connections: 2,
                max_in_flight: 20,
                max_subscriptions: 100,
                max_session_pool: 200_000,
                max_session_bytes: 50_000,
                ..Limits::default()
            };
            let mut writes = Vec::new();
            for number in 1..=sessions {
                let mut changes = vec![Change::Session(id(number), 60, None)];
                changes
                    .extend((0..filters).map(|filter| Change::Subscribed(id(number), format!("{filter}/{}", "f".repeat(length)), OPTIONS)));
                changes.extend((0..ids).map(|packet_id| Change::Qos2Received(id(number), packet_id)));
                writes.extend(read_entries(&encode(&changes)));
            }
            // Parts of a session that was being removed.
            writes.extend(read_entries(&encode(&[Change::Subscribed(id(99), "x".to_owned(), OPTIONS)])));
            checkpoint.apply(&writes, forebay_wal::Offset(1)).unwrap();
            let start = || {
                let (stored, stats) = stored(&limits);
                stored.restore(&checkpoint).unwrap();
                let (sessions, last) = stored.take();
                assert!(sessions.len() <= 8 && last <= 99);
                let bytes: u64 = sessions.iter().map(|session| session.bytes.amount()).sum();
                assert!(bytes <= 200_000);
                for session in &sessions {
                    assert!(session.bytes.amount() <= 50_000 && session.subscriptions.len() <= 100 && session.qos2.len() <= 20);
                }
                let entries: usize = sessions
                    .iter()
                    .map(|session| 1 + session.subscriptions.len() + session.qos2.len())
                    .sum();
                (entries, stats.dropped_sessions(DroppedSession::AtStart))
            };
            let (kept, dropped) = start();
            assert_eq!(kept as u64 + dropped, writes.len() as u64);
            assert!(dropped > 1);
            let mut left = 0;
            checkpoint.for_each(|_, _| left += 1).unwrap();
            assert_eq!((left, start()), (kept, (kept, 0)), "what was dropped is gone");
        }
    }
}
