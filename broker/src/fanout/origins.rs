//! Which session published a message, for subscriptions with No Local (MQTT-3.8.3-3).
//!
//! A record in the log has its publisher's identity and not its client id, and several clients may have one identity. So a session that
//! has such a subscription notes each of its records here as it appends it. The fan-out takes the note when the record comes to it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_wal::{Batch, Offset, StreamId};

/// A session, told apart from others by a number that is its own while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(pub(super) u64);

impl Origin {
    /// A session without a subscription with No Local: nobody asks.
    pub(crate) const UNKNOWN: Self = Self(0);
}

/// The notes.
#[derive(Default)]
pub(super) struct Origins {
    notes: Mutex<HashMap<(StreamId, Offset), (Batch, Origin)>>,
    /// Notes, and appends under way that will make one. Without any, the fan-out does not ask.
    expected: AtomicUsize,
    numbers: RandomState,
}

impl Origins {
    /// The number of a session: the same for each of its connections.
    pub(super) fn of(&self, identity: &str, client_id: &str) -> Origin {
        Origin(self.numbers.hash_one((identity, client_id)).max(1))
    }

    /// Appends a record, and notes whose it is if `append` returns its place. Until then the fan-out waits if it asks.
    pub(super) fn note<T>(
        &self,
        origin: Origin,
        append: impl FnOnce() -> T,
        place: impl FnOnce(&T) -> Option<(StreamId, Offset, Batch)>,
    ) -> T {
        self.expected.fetch_add(1, Ordering::AcqRel);
        let mut notes = self.lock();
        let appended = append();
        if let Some((stream, offset, batch)) = place(&appended) {
            notes.insert((stream, offset), (batch, origin));
        }
        self.expected.store(notes.len(), Ordering::Release);
        appended
    }

    /// Whose this record is, if it was noted.
    pub(super) fn take(&self, stream: StreamId, offset: Offset) -> Origin {
        if self.expected.load(Ordering::Acquire) == 0 {
            return Origin::UNKNOWN;
        }
        let mut notes = self.lock();
        let origin = notes.remove(&(stream, offset)).map_or(Origin::UNKNOWN, |(_, origin)| origin);
        self.expected.store(notes.len(), Ordering::Release);
        origin
    }

    /// Forgets records that did not come: their commit failed, or their batch skipped the fan-out.
    pub(super) fn forget(&self, reached: Batch) {
        if self.expected.load(Ordering::Acquire) > 0 {
            let mut notes = self.lock();
            notes.retain(|_, (batch, _)| *batch > reached);
            self.expected.store(notes.len(), Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(StreamId, Offset), (Batch, Origin)>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_taken_once_and_what_does_not_come_is_forgotten() {
        let origins = Origins::default();
        let (one, other) = (origins.of("local", "one"), origins.of("local", "other"));
        assert!(one != other && one == origins.of("local", "one"));
        let place = |offset, batch| move |_: &()| Some((StreamId(0), Offset(offset), Batch(batch)));
        for offset in 0..10 {
            origins.note(one, || (), place(offset, offset / 5 + 1));
        }
        origins.note(other, || (), |()| None);
        assert_eq!(origins.take(StreamId(0), Offset(3)), one);
        assert_eq!(origins.take(StreamId(0), Offset(3)), Origin::UNKNOWN);
        assert_eq!(origins.take(StreamId(1), Offset(4)), Origin::UNKNOWN);
        origins.forget(Batch(1));
        assert_eq!(origins.take(StreamId(0), Offset(4)), Origin::UNKNOWN);
        assert_eq!(origins.take(StreamId(0), Offset(5)), one);
        origins.forget(Batch(2));
        assert_eq!(origins.expected.load(Ordering::Relaxed), 0);
        assert_eq!(origins.lock().len(), 0);
    }
}
