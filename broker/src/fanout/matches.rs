//! The subscribers that one message has.

use std::sync::Arc;

use super::Message;
use crate::session::SubscriptionOptions;

/// Receives messages. It never blocks: it drops and counts what it cannot take. These are its subscriptions that match, one at
/// least, and it gets each message once, in one of two ways.
pub(crate) trait Recipient: Send + Sync {
    /// Takes a message at QoS 0.
    fn deliver(&self, message: &Message, subscriptions: &[SubscriptionOptions]);

    /// Takes a message that was published at QoS 1 or 2, and that one of the subscriptions at least wants at QoS 1 or 2.
    fn owe(&self, message: &Arc<Message>, subscriptions: &[SubscriptionOptions]);
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
        self.each(|recipient, subscriptions| recipient.deliver(message, subscriptions));
    }

    /// Takes out those who are owed a message of this QoS at QoS 1 or 2.
    pub(super) fn take_owed(&mut self, qos: u8) -> Self {
        if qos == 0 || self.subscriptions.iter().all(|options| options.qos == 0) {
            return Self::default();
        }
        let (mut owed, mut others) = (Self::default(), Self::default());
        self.each(|recipient, subscriptions| {
            let is_owed = subscriptions.iter().any(|options| options.qos > 0);
            let to = if is_owed { &mut owed } else { &mut others };
            to.recipients.push((Arc::clone(recipient), subscriptions.len()));
            to.subscriptions.extend_from_slice(subscriptions);
        });
        *self = others;
        owed
    }

    /// Owes the message to each of them.
    pub(super) fn owe(&self, message: &Arc<Message>) {
        self.each(|recipient, subscriptions| recipient.owe(message, subscriptions));
    }

    fn each(&self, mut take: impl FnMut(&Arc<dyn Recipient>, &[SubscriptionOptions])) {
        let mut rest = &self.subscriptions[..];
        for (recipient, count) in &self.recipients {
            let (of_one, after) = rest.split_at(*count);
            take(recipient, of_one);
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
