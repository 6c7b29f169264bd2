//! The subscriptions, twice: as connections change them, and as messages are matched. So no connection waits for a match, and a
//! match for no connection; the lock between them is held for one change.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_topic::TopicFilter;
use forebay_wal::Batch;

use super::matches::{Matches, Recipient};
use super::table::{NodeId, Table, TooManyFilters};
use crate::session::SubscriptionOptions;

/// Changes that the side of the matches has not seen. It takes them with each message and each tick, so more wait only while the
/// fan-out is at a standstill; then no subscription is added.
const MAX_CHANGES: usize = 100_000;

/// The connections' side.
#[derive(Default)]
pub(super) struct Subscriptions {
    edited: Mutex<Edited>,
    /// How many changes wait, readable without the lock.
    unseen: AtomicUsize,
}

#[derive(Default)]
struct Edited {
    table: Table,
    changes: VecDeque<Change>,
}

/// The same change, for the other side: made there once this batch has been matched.
struct Change {
    after: Batch,
    what: What,
}

enum What {
    Insert(TopicFilter, Arc<dyn Recipient>, SubscriptionOptions),
    Remove(NodeId, Arc<dyn Recipient>),
}

/// The side of the matches: a copy that follows. The same changes in the same order give the same nodes the same numbers.
#[derive(Default)]
pub(super) struct Snapshot {
    table: Table,
    waiting: VecDeque<Change>,
}

impl Subscriptions {
    /// Subscribes, or changes the options of a subscription that exists: then there is no new place. What is in batch `after` or
    /// before it is not matched.
    ///
    /// # Errors
    /// There are too many filters.
    pub(super) fn insert(
        &self,
        filter: &TopicFilter,
        recipient: &Arc<dyn Recipient>,
        options: SubscriptionOptions,
        after: Batch,
    ) -> Result<Option<NodeId>, TooManyFilters> {
        let mut edited = self.lock();
        if edited.changes.len() >= MAX_CHANGES {
            return Err(TooManyFilters);
        }
        let place = edited.table.insert(filter, recipient, options)?;
        self.tell(&mut edited, after, What::Insert(filter.clone(), Arc::clone(recipient), options));
        Ok(place)
    }

    /// Ends a subscription; false if there is none.
    pub(super) fn remove(&self, place: NodeId, recipient: &Arc<dyn Recipient>) -> bool {
        let mut edited = self.lock();
        let existed = edited.table.remove(place, recipient);
        if existed {
            self.tell(&mut edited, Batch(0), What::Remove(place, Arc::clone(recipient)));
        }
        existed
    }

    /// The node of this filter, if it has a subscription.
    pub(super) fn place(&self, filter: &str) -> Option<NodeId> {
        self.lock().table.place(filter)
    }

    /// Whether there is a filter with this first level.
    pub(super) fn has_first_level(&self, level: &str) -> bool {
        self.lock().table.has_first_level(level)
    }

    fn tell(&self, edited: &mut Edited, after: Batch, what: What) {
        edited.changes.push_back(Change { after, what });
        self.unseen.store(edited.changes.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Edited> {
        self.edited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    /// Makes the changes that have come, except those that are to come after a batch that has not been `reached`.
    pub(super) fn follow(&mut self, subscriptions: &Subscriptions, reached: Batch) {
        if subscriptions.unseen.load(Ordering::Acquire) > 0 {
            let mut edited = subscriptions.lock();
            self.waiting.append(&mut edited.changes);
            edited.changes.shrink_to(64);
            subscriptions.unseen.store(0, Ordering::Release);
        }
        while let Some(change) = self.waiting.pop_front_if(|change| change.after <= reached) {
            match change.what {
                // The other side has room for it, so this one has.
                What::Insert(filter, recipient, options) => drop(self.table.insert(&filter, &recipient, options)),
                What::Remove(place, recipient) => drop(self.table.remove(place, &recipient)),
            }
        }
    }

    /// The subscribers of this topic.
    pub(super) fn matching(&self, topic: &str) -> Matches {
        self.table.matching(topic)
    }
}
