//! Retained messages: the last message of a topic that was published with RETAIN, for later subscriptions.
//!
//! A change is a record of the stream `local`, in the same append as the message's own record: one commit has both or
//! neither, and the ack waits for it. Payloads are in `state.redb`, a checkpoint of that stream. In memory are the changes
//! that the checkpoint does not have yet ([`overlay`]) and what the bounds need ([`quota`]).
//!
//! Bounds: `limits.max_topics` messages and `sessions.max_bytes` bytes of topics, payloads and properties. At a bound a
//! message is delivered but not retained, and counted by its reason. If it was to replace a smaller one, that one is
//! removed, because an old value is worse than none. [`MAX_BEHIND`] bytes may wait for the checkpoint; beyond it a publish is refused
//! as if the log were full, and one at QoS 0 is not retained.

mod follower;
mod lookup;
mod message;
mod overlay;
mod quota;
mod sweep;

use forebay_topic::PeerText;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay_wal::{Batch, CommitError, CommitListener, Timestamp};
use tokio::sync::{Notify, Semaphore};

use crate::budget::{Budget, Owner};
use crate::commits::Commits;
use crate::local_state::{StateFile, write_entry};
use crate::observe::{Stats, Unretained};
pub(crate) use lookup::{LookupError, Page, Span, Wanted};
pub(crate) use message::RetainedMessage;
use message::{Change, Head, TAG};
use overlay::Overlay;
use quota::{Bounds, OverQuota, Quota, Usage};
pub(crate) use sweep::sweep;

/// Bytes of changes in memory at which the checkpoint is written at once.
const PRESSURE: usize = 1 << 20;
/// Bytes of changes in memory that may wait for the checkpoint.
const MAX_BEHIND: usize = 8 << 20;
/// Lookups at a time: each has a page in memory and blocks on the disk.
const LOOKUPS: usize = 2;
/// How often a bound that is reached is logged.
const WARNING_EVERY: Duration = Duration::from_secs(60);

/// All retained messages of the process.
pub(crate) struct Retained {
    state: Mutex<State>,
    /// Changes appended and not committed. At zero, a commit passes without the lock.
    uncommitted: AtomicU64,
    bounds: Bounds,
    stats: Arc<Stats>,
    budget: Arc<Budget>,
    file: Arc<StateFile>,
    lookups: Semaphore,
    /// Notified when a bound is reached, so that expired messages are removed.
    over_quota: Notify,
}

#[derive(Default)]
struct State {
    quota: Quota,
    overlay: Overlay,
    next_version: u64,
    warned: [Option<Timestamp>; Unretained::ALL.len()],
}

/// A publish with RETAIN.
pub(crate) struct Candidate<'a> {
    pub(crate) topic: &'a str,
    pub(crate) identity: &'a Arc<str>,
    pub(crate) received: Timestamp,
    pub(crate) qos: u8,
    pub(crate) expiry: Option<u32>,
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// What a publish with RETAIN changes.
#[allow(clippy::large_enum_variant, reason = "it lives on the stack for one append")]
pub(crate) enum Decision<'a> {
    /// Nothing changes.
    Unchanged,
    /// This is to be appended.
    Change(PendingChange<'a>),
    /// Too many changes wait for the checkpoint.
    Behind,
}

/// A change between its decision and its append. It has the lock, so that the order here is the order of the log.
pub(crate) struct PendingChange<'a> {
    retained: &'a Retained,
    state: MutexGuard<'a, State>,
    topic: Arc<str>,
    change: Option<Change>,
    usage: Option<Usage>,
    entry: Vec<u8>,
}

/// Passes a connection's commits to the retained messages before its outbox: what is acked can be seen by subscribers.
pub(crate) struct RetainedBeforeAcks {
    pub(crate) retained: Arc<Retained>,
    pub(crate) commits: Arc<Commits>,
}

impl Retained {
    pub(crate) fn new(max_messages: usize, max_bytes: u64, stats: Arc<Stats>, budget: Arc<Budget>, file: Arc<StateFile>) -> Self {
        Self {
            state: Mutex::default(),
            uncommitted: AtomicU64::new(0),
            bounds: Bounds {
                messages: max_messages,
                bytes: max_bytes,
            },
            stats,
            budget,
            file,
            lookups: Semaphore::new(LOOKUPS),
            over_quota: Notify::new(),
        }
    }

    /// Decides what a publish with RETAIN changes (MQTT 5, 3.3.1.3), and counts it if it is not retained.
    pub(crate) fn decide<'a>(&'a self, candidate: &Candidate<'_>) -> Decision<'a> {
        let topic = candidate.topic;
        let mut state = self.lock();
        let before = state.quota.of(topic);
        if candidate.payload.is_empty() {
            return match before {
                None => Decision::Unchanged,
                Some(_) => Decision::Change(self.removal(state, topic)),
            };
        }
        if state.overlay.bytes() > MAX_BEHIND {
            self.file.hurry();
            return Decision::Behind;
        }
        let bytes = topic.len() + candidate.properties.len() + candidate.payload.len();
        let usage = state.quota.usage(candidate.identity, bytes, candidate.expiry.is_some());
        if let Err(over_quota) = state.quota.admit(topic, &usage, self.bounds) {
            self.over_quota.notify_one();
            let reason = match over_quota {
                OverQuota::Messages => Unretained::TooMany,
                OverQuota::Bytes => Unretained::TooLarge,
                OverQuota::IdentityMessages | OverQuota::IdentityBytes => Unretained::IdentityQuota,
            };
            let owner = Owner::Identity(Arc::clone(candidate.identity));
            self.budget.note(over_quota.exceeded(self.bounds), &owner);
            self.not_retained(&mut state, candidate, reason);
            return match before {
                None => Decision::Unchanged,
                Some(_) => Decision::Change(self.removal(state, topic)),
            };
        }
        let topic: Arc<str> = topic.into();
        let message = RetainedMessage {
            topic: Arc::clone(&topic),
            head: Head {
                version: state.take_version(),
                received: candidate.received,
                qos: candidate.qos,
                expiry: candidate.expiry,
                properties_len: candidate.properties.len(),
                payload_len: candidate.payload.len(),
                identity: Arc::clone(candidate.identity),
            },
            // Copied, because the originals would keep a whole read buffer in memory.
            properties: Bytes::copy_from_slice(candidate.properties),
            payload: Bytes::copy_from_slice(candidate.payload),
        };
        Decision::Change(self.pending(state, topic, Change::Set(message), Some(usage)))
    }

    /// Counts and logs a publish with RETAIN that the log cannot append.
    pub(crate) fn refuse(&self, candidate: &Candidate<'_>, reason: Unretained) {
        self.not_retained(&mut self.lock(), candidate, reason);
    }

    fn not_retained(&self, state: &mut State, candidate: &Candidate<'_>, reason: Unretained) {
        self.stats.unretain(reason);
        let Some(warned) = state.warned.get_mut(reason as usize) else {
            return;
        };
        let now = candidate.received;
        if warned.is_some_and(|at| at.age(&now).is_some_and(|age| age < WARNING_EVERY)) {
            return;
        }
        *warned = Some(now);
        let why = match reason {
            Unretained::TooMany => "there are as many retained messages as `limits.max_topics` allows",
            Unretained::TooLarge => "with it, retained messages would exceed `sessions.max_bytes`",
            Unretained::IdentityQuota => {
                "this identity already has a quarter of what `limits.max_topics` or `sessions.max_bytes` allows; check whether it invents topics"
            }
            Unretained::LogUnavailable => "the log cannot append it at the moment",
            Unretained::Behind => "too many changes wait for state.redb; check whether the disk is slow",
        };
        tracing::warn!(
            identity = ?PeerText::new(candidate.identity),
            topic = ?PeerText::new(candidate.topic),
            reason = reason.label(),
            "message delivered but not retained: {why}; further ones are counted in forebay_unretained_total"
        );
    }

    fn removal<'a>(&'a self, mut state: MutexGuard<'a, State>, topic: &str) -> PendingChange<'a> {
        let version = state.take_version();
        self.pending(state, topic.into(), Change::Removed(version), None)
    }

    fn pending<'a>(&'a self, state: MutexGuard<'a, State>, topic: Arc<str>, change: Change, usage: Option<Usage>) -> PendingChange<'a> {
        let mut entry = Vec::new();
        write_entry(&message::key(TAG, topic.as_bytes()), Some(&change.encode()), &mut entry);
        // Before the append, and so before its commit: the commit's listener reads this first.
        self.uncommitted.fetch_add(1, Ordering::AcqRel);
        PendingChange {
            retained: self,
            state,
            topic,
            change: Some(change),
            usage,
            entry,
        }
    }

    /// Whether there are none, so that a subscription needs no lookup.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().quota.len() == 0
    }

    fn count(&self, state: &State) {
        self.stats.retained.store(state.quota.len() as u64, Ordering::Relaxed);
        self.stats.retained_bytes.store(state.quota.bytes(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version
    }
}

impl PendingChange<'_> {
    /// Its entry in the `local` record.
    pub(crate) fn entry(&self) -> &[u8] {
        &self.entry
    }

    /// It was appended to this batch. If it is dropped without this, nothing has changed.
    pub(crate) fn appended(mut self, batch: Batch) {
        let Some(change) = self.change.take() else { return };
        let state = &mut *self.state;
        let base = state.quota.of(&self.topic);
        state.quota.set(&self.topic, self.usage);
        state.overlay.append(&self.topic, change, self.usage, base, batch);
        if state.overlay.bytes() > PRESSURE {
            self.retained.file.hurry();
        }
        self.retained.count(state);
    }
}

impl Drop for PendingChange<'_> {
    fn drop(&mut self) {
        if self.change.is_some() {
            self.retained.uncommitted.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl CommitListener for Retained {
    fn committed(&self, batch: Batch) {
        if self.uncommitted.load(Ordering::Acquire) > 0 {
            let mut state = self.lock();
            let ended = state.overlay.committed(batch);
            self.uncommitted.fetch_sub(ended, Ordering::AcqRel);
        }
    }

    fn failed(&self, batch: Batch, _error: &CommitError) {
        let mut state = self.lock();
        let State { quota, overlay, .. } = &mut *state;
        let ended = overlay.failed(batch, quota);
        self.uncommitted.fetch_sub(ended, Ordering::AcqRel);
        self.count(&state);
    }
}

impl CommitListener for RetainedBeforeAcks {
    fn committed(&self, batch: Batch) {
        self.retained.committed(batch);
        self.commits.committed(batch);
    }

    fn failed(&self, batch: Batch, error: &CommitError) {
        self.retained.failed(batch, error);
        self.commits.failed(batch, error);
    }
}
