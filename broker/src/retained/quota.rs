//! Which topics have a retained message, its size and its publisher: enough to keep the bounds without reading the disk.
//!
//! A topic is stored as a hash of 64 bits under a random key, some 30 bytes for each. Two topics with the same hash would
//! count as one in the bounds; they never share a message.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::budget::{Bound, Exceeded};

/// How much may be retained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: u64,
}

/// What the message of one topic counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    owner: u64,
    bytes: u32,
    pub(super) expires: bool,
}

/// What all messages count for, including appended changes that are not committed yet.
#[derive(Debug, Default)]
pub(super) struct Quota {
    topics: HashMap<u64, Usage>,
    owners: HashMap<u64, Share>,
    bytes: u64,
    expiring: usize,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    messages: usize,
    bytes: u64,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverQuota {
    Messages,
    Bytes,
    /// There is room, but this identity has its share of the messages.
    IdentityMessages,
    /// There is room, but this identity has its share of the bytes.
    IdentityBytes,
}

impl OverQuota {
    /// The bound, for the counters.
    pub(super) fn exceeded(self, bounds: Bounds) -> Exceeded {
        match self {
            Self::Messages => Exceeded::whole(Bound::Retained, bounds.messages as u64),
            Self::Bytes => Exceeded::whole(Bound::RetainedBytes, bounds.bytes),
            Self::IdentityMessages => Exceeded::share(Bound::Retained, bounds.messages as u64 / 4),
            Self::IdentityBytes => Exceeded::share(Bound::RetainedBytes, bounds.bytes / 4),
        }
    }
}

impl Quota {
    pub(super) fn usage(&self, identity: &str, bytes: usize, expires: bool) -> Usage {
        Usage {
            owner: self.hasher.hash_one(identity),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            expires,
        }
    }

    pub(super) fn of(&self, topic: &str) -> Option<Usage> {
        self.topics.get(&self.hasher.hash_one(topic)).copied()
    }

    /// Sets what the topic counts for now; `None` if it has no message.
    pub(super) fn set(&mut self, topic: &str, usage: Option<Usage>) {
        let at = self.hasher.hash_one(topic);
        let before = match usage {
            Some(usage) => self.topics.insert(at, usage),
            None => self.topics.remove(&at),
        };
        if let Some(before) = before {
            self.bytes -= u64::from(before.bytes);
            self.expiring -= usize::from(before.expires);
            if let Some(share) = self.owners.get_mut(&before.owner) {
                share.messages -= 1;
                share.bytes -= u64::from(before.bytes);
                if share.messages == 0 {
                    self.owners.remove(&before.owner);
                }
            }
        }
        if let Some(usage) = usage {
            self.bytes += u64::from(usage.bytes);
            self.expiring += usize::from(usage.expires);
            let share = self.owners.entry(usage.owner).or_default();
            share.messages += 1;
            share.bytes += u64::from(usage.bytes);
        }
    }

    /// Whether the topic may have this message. A message that is not larger than the present one always may replace it.
    /// In the second half of a bound, no identity may have more than a quarter: a device that invents topics must not shut
    /// out others.
    pub(super) fn admit(&self, topic: &str, new: &Usage, bounds: Bounds) -> Result<(), OverQuota> {
        let before = self.of(topic);
        let (adds, grows) = match before {
            None => (1, u64::from(new.bytes)),
            Some(before) => (0, u64::from(new.bytes.saturating_sub(before.bytes))),
        };
        if adds == 0 && grows == 0 {
            return Ok(());
        }
        if self.topics.len() + adds > bounds.messages {
            return Err(OverQuota::Messages);
        }
        if self.bytes + grows > bounds.bytes {
            return Err(OverQuota::Bytes);
        }
        let own = self.owners.get(&new.owner).copied().unwrap_or_default();
        let has_many = adds > 0 && self.topics.len() >= bounds.messages / 2 && own.messages >= bounds.messages / 4;
        let has_much = self.bytes + grows > bounds.bytes / 2 && own.bytes + grows > bounds.bytes / 4;
        match (has_many, has_much) {
            (true, _) => Err(OverQuota::IdentityMessages),
            (_, true) => Err(OverQuota::IdentityBytes),
            (false, false) => Ok(()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many have an expiry.
    pub(super) fn expiring(&self) -> usize {
        self.expiring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_follow_every_change() {
        let mut quota = Quota::default();
        let (small, large) = (quota.usage("a", 10, true), quota.usage("b", 30, false));
        quota.set("x", Some(small));
        quota.set("y", Some(large));
        assert_eq!((quota.len(), quota.bytes(), quota.expiring()), (2, 40, 1));
        quota.set("x", Some(large));
        assert_eq!((quota.len(), quota.bytes(), quota.expiring()), (2, 60, 0));
        assert_eq!(quota.of("x"), Some(large));
        quota.set("x", None);
        quota.set("y", None);
        quota.set("y", None);
        assert_eq!((quota.len(), quota.bytes(), quota.expiring()), (0, 0, 0));
        assert!(quota.owners.is_empty());
    }

    #[test]
    fn one_identity_never_takes_all_places() {
        let bounds = Bounds { messages: 8, bytes: 1_000 };
        let mut quota = Quota::default();
        let of = |quota: &Quota, who: &str| quota.usage(who, 1, false);
        for topic in 0..4 {
            let usage = of(&quota, "greedy");
            assert_eq!(quota.admit(&topic.to_string(), &usage, bounds), Ok(()));
            quota.set(&topic.to_string(), Some(usage));
        }
        assert_eq!(quota.admit("4", &of(&quota, "greedy"), bounds), Err(OverQuota::IdentityMessages));
        assert_eq!(
            quota.admit("3", &of(&quota, "greedy"), bounds),
            Ok(()),
            "what is there may be replaced"
        );
        for topic in 4..8 {
            let usage = of(&quota, &format!("d{}", topic / 2));
            assert_eq!(quota.admit(&topic.to_string(), &usage, bounds), Ok(()));
            quota.set(&topic.to_string(), Some(usage));
        }
        assert_eq!(quota.admit("8", &of(&quota, "other"), bounds), Err(OverQuota::Messages));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let bounds = Bounds { messages: 100, bytes: 100 };
        let mut quota = Quota::default();
        let of = |quota: &Quota, who: &str, bytes| quota.usage(who, bytes, false);
        assert_eq!(quota.admit("x", &of(&quota, "a", 101), bounds), Err(OverQuota::Bytes));
        quota.set("x", Some(of(&quota, "a", 25)));
        quota.set("y", Some(of(&quota, "b", 25)));
        assert_eq!(quota.admit("z", &of(&quota, "a", 1), bounds), Err(OverQuota::IdentityBytes));
        assert_eq!(quota.admit("x", &of(&quota, "a", 26), bounds), Err(OverQuota::IdentityBytes));
        assert_eq!(quota.admit("x", &of(&quota, "a", 24), bounds), Ok(()));
        assert_eq!(quota.admit("z", &of(&quota, "c", 25), bounds), Ok(()));
    }
}
