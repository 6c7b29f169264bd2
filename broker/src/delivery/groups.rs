//! The shared subscriptions that have members.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_topic::TopicFilter;
use forebay_wal::Batch;

use super::group::{Group, Member, TooManyMembers};
use crate::budget::{Budget, Owner};
use crate::fanout::{Fanout, NodeId, Recipient, TooManyFilters};
use crate::observe::Stats;
use crate::session::SubscriptionOptions;

/// All of them, by what follows `$share/`.
pub(crate) struct Groups {
    groups: Mutex<HashMap<String, Known>>,
    budget: Arc<Budget>,
    stats: Arc<Stats>,
    /// Of what waits in one (`sessions.per_session`).
    max_bytes: u64,
}

struct Known {
    group: Arc<Group>,
    recipient: Arc<dyn Recipient>,
    place: NodeId,
}

/// Why a session could not become a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotJoined {
    TooManyFilters(TooManyFilters),
    TooManyMembers,
}

impl Groups {
    pub(crate) fn new(budget: Arc<Budget>, stats: Arc<Stats>, max_bytes: u64) -> Self {
        Self {
            groups: Mutex::default(),
            budget,
            stats,
            max_bytes,
        }
    }

    /// Makes the session a member of this group, or changes its options. The first member subscribes to what comes after batch `after`.
    ///
    /// # Errors
    /// See [`NotJoined`].
    pub(crate) fn join(
        &self,
        share: &Share<'_>,
        member: &Arc<dyn Member>,
        options: SubscriptionOptions,
        owner: Owner,
        (fanout, after): (&Fanout, Batch),
    ) -> Result<Arc<Group>, NotJoined> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match groups.entry(share.key.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let group = Group::new(&self.budget, &self.stats, owner.clone(), self.max_bytes);
                let recipient: Arc<dyn Recipient> = Arc::clone(&group) as _;
                // Each member has its own options; this is the most that any can have.
                let most = SubscriptionOptions {
                    qos: 2,
                    no_local: false,
                    retain_as_published: true,
                    subscription_id: None,
                };
                let place = fanout
                    .subscribe(&share.filter, &recipient, most, after)
                    .map_err(NotJoined::TooManyFilters)?;
                // A group subscribes once, so its place is new.
                let place = place.or_else(|| fanout.place(share.filter.as_str()));
                let place = place.ok_or(NotJoined::TooManyMembers)?;
                vacant.insert(Known { group, recipient, place })
            }
        };
        let joined = known.group.join(member, options, owner);
        joined.map_err(|TooManyMembers| NotJoined::TooManyMembers)?;
        Ok(Arc::clone(&known.group))
    }

    /// Ends a membership.
    pub(crate) fn leave(&self, key: &str, member: &Arc<dyn Member>, fanout: &Fanout) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(known) = groups.entry(key.to_owned())
            && known.get().group.leave(member)
        {
            let Known { recipient, place, .. } = known.remove();
            fanout.unsubscribe(place, &recipient);
        }
    }
}

/// A filter `$share/GROUP/FILTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share<'t> {
    /// What follows `$share/`: it names the group.
    pub(crate) key: &'t str,
    /// The filter inside.
    pub(crate) filter: TopicFilter,
}

/// Why a text that begins with `$share/` is no shared subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShareError {
    #[error(
        "a shared subscription is `$share/GROUP/FILTER`, as in `$share/workers/devices/#`, and the group's name has neither `+` nor `#`"
    )]
    Group,
    #[error("the filter behind the group's name: {0}")]
    Filter(forebay_topic::FilterError),
}

impl<'t> Share<'t> {
    /// `None` if the text is an ordinary filter.
    ///
    /// # Errors
    /// What is wrong with the name of the group (MQTT-4.8.2-1, MQTT-4.8.2-2) or with the filter.
    pub(crate) fn parse(text: &'t str) -> Result<Option<Self>, ShareError> {
        let Some(key) = text.strip_prefix("$share/") else { return Ok(None) };
        let (group, filter) = key.split_once('/').ok_or(ShareError::Group)?;
        if group.is_empty() || group.contains(['+', '#']) {
            return Err(ShareError::Group);
        }
        let filter = TopicFilter::parse(filter).map_err(ShareError::Filter)?;
        Ok(Some(Self { key, filter }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_group_and_its_filter_are_checked_before_anything_else() {
        for bad in [
            "$share/",
            "$share/g",
            "$share//t",
            "$share/+/t",
            "$share/g#/t",
            "$share/g/",
            "$share/g/a#",
            "$share/g/+a",
        ] {
            assert!(Share::parse(bad).is_err(), "{bad}");
        }
        for ordinary in ["$share", "$shared/g/t", "share/g/t", "a/$share/g/t"] {
            assert_eq!(Share::parse(ordinary), Ok(None), "{ordinary}");
        }
        for (text, filter) in [
            ("$share/g/t", "t"),
            ("$share/g//t", "/t"),
            ("$share/$x/$SYS/#", "$SYS/#"),
            ("$share/g/+/#", "+/#"),
        ] {
            let share = Share::parse(text).unwrap().unwrap();
            assert_eq!(share.filter.as_str(), filter);
            assert_eq!(share.key, &text[7..]);
        }
    }
}
