//! The subscribers that one message has.

use std::sync::Arc;

use super::Message;
use crate::session::SubscriptionOptions;

/// Receives messages. It never blocks: it drops and counts what it cannot take.
pub(crate) trait Recipient: Send + Sync {
    /// Takes a message once; these are its subscriptions that match, one at least.
    fn deliver(&self, message: &Message, subscriptions: &[SubscriptionOptions]);
}

/// Subscribers of a topic, as they were when it was looked for. It keeps no lock and needs none.
#[derive(Default)]
pub(super) struct Matches {
    /// Each with the number of its subscriptions.
    recipients: Vec<(Arc<dyn Recipient>, usize)>,
    subscriptions: Vec<SubscriptionOptions>,
    is_cut: bool,
}

impl Matches {
    /// Puts together what belongs to one subscriber. `is_cut`: there may be more of them.
    pub(super) fn new(mut found: Vec<(&Arc<dyn Recipient>, SubscriptionOptions)>, is_cut: bool) -> Self {
        found.sort_unstable_by_key(|(recipient, _)| Arc::as_ptr(recipient).cast::<()>().addr());
        let recipients = found
            .chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other))
            .map(|of_one| (Arc::clone(of_one[0].0), of_one.len()))
            .collect();
        Self {
            recipients,
            subscriptions: found.into_iter().map(|(_, options)| options).collect(),
            is_cut,
        }
    }

    /// Gives the message to each of them.
    pub(super) fn deliver(&self, message: &Message) {
        let mut rest = &self.subscriptions[..];
        for (recipient, count) in &self.recipients {
            let (of_one, after) = rest.split_at(*count);
            recipient.deliver(message, of_one);
            rest = after;
        }
    }

    /// The number of subscribers.
    pub(super) fn len(&self) -> usize {
        self.recipients.len()
    }

    /// Whether the search ended before it had looked everywhere.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }
}
