//! Which topics keep a message, how large each is and whose: enough to hold the bounds without a look at the disk.
//!
//! A topic is known by a hash of 64 bits under a random key, some 30 bytes for each. Two topics with one hash would share
//! a place in the bounds, never a message.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: u64,
}

/// What one topic holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    owner: u64,
    bytes: u32,
    pub(super) expires: bool,
}

/// All that is held, appended changes whose commit is not known yet included.
#[derive(Debug, Default)]
pub(super) struct Book {
    topics: HashMap<u64, Held>,
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

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    Messages,
    Bytes,
    /// There is room, but not for this identity.
    OfOne,
}

impl Book {
    pub(super) fn held(&self, identity: &str, bytes: usize, expires: bool) -> Held {
        Held {
            owner: self.hasher.hash_one(identity),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            expires,
        }
    }

    pub(super) fn of(&self, topic: &str) -> Option<Held> {
        self.topics.get(&self.hasher.hash_one(topic)).copied()
    }

    /// Notes what the topic holds now; none = nothing.
    pub(super) fn set(&mut self, topic: &str, held: Option<Held>) {
        let at = self.hasher.hash_one(topic);
        let before = match held {
            Some(held) => self.topics.insert(at, held),
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
        if let Some(held) = held {
            self.bytes += u64::from(held.bytes);
            self.expiring += usize::from(held.expires);
            let share = self.owners.entry(held.owner).or_default();
            share.messages += 1;
            share.bytes += u64::from(held.bytes);
        }
    }

    /// Whether the topic may hold this. What is there already may always be replaced by something that is not larger.
    /// In the second half no identity may take more than a quarter, as one would that makes up topics.
    pub(super) fn admit(&self, topic: &str, new: &Held, bounds: Bounds) -> Result<(), NoRoom> {
        let before = self.of(topic);
        let (adds, grows) = match before {
            None => (1, u64::from(new.bytes)),
            Some(before) => (0, u64::from(new.bytes.saturating_sub(before.bytes))),
        };
        if adds == 0 && grows == 0 {
            return Ok(());
        }
        if self.topics.len() + adds > bounds.messages {
            return Err(NoRoom::Messages);
        }
        if self.bytes + grows > bounds.bytes {
            return Err(NoRoom::Bytes);
        }
        let own = self.owners.get(&new.owner).copied().unwrap_or_default();
        let has_many = adds > 0 && self.topics.len() >= bounds.messages / 2 && own.messages >= bounds.messages / 4;
        let has_much = self.bytes + grows > bounds.bytes / 2 && own.bytes + grows > bounds.bytes / 4;
        if has_many || has_much { Err(NoRoom::OfOne) } else { Ok(()) }
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
        let mut book = Book::default();
        let (small, large) = (book.held("a", 10, true), book.held("b", 30, false));
        book.set("x", Some(small));
        book.set("y", Some(large));
        assert_eq!((book.len(), book.bytes(), book.expiring()), (2, 40, 1));
        book.set("x", Some(large));
        assert_eq!((book.len(), book.bytes(), book.expiring()), (2, 60, 0));
        assert_eq!(book.of("x"), Some(large));
        book.set("x", None);
        book.set("y", None);
        book.set("y", None);
        assert_eq!((book.len(), book.bytes(), book.expiring()), (0, 0, 0));
        assert!(book.owners.is_empty());
    }

    #[test]
    fn one_identity_never_takes_all_places() {
        let bounds = Bounds { messages: 8, bytes: 1_000 };
        let mut book = Book::default();
        let of = |book: &Book, who: &str| book.held(who, 1, false);
        for topic in 0..4 {
            let held = of(&book, "greedy");
            assert_eq!(book.admit(&topic.to_string(), &held, bounds), Ok(()));
            book.set(&topic.to_string(), Some(held));
        }
        assert_eq!(book.admit("4", &of(&book, "greedy"), bounds), Err(NoRoom::OfOne));
        assert_eq!(
            book.admit("3", &of(&book, "greedy"), bounds),
            Ok(()),
            "what is there may be replaced"
        );
        for topic in 4..8 {
            let held = of(&book, &format!("d{}", topic / 2));
            assert_eq!(book.admit(&topic.to_string(), &held, bounds), Ok(()));
            book.set(&topic.to_string(), Some(held));
        }
        assert_eq!(book.admit("8", &of(&book, "other"), bounds), Err(NoRoom::Messages));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let bounds = Bounds { messages: 100, bytes: 100 };
        let mut book = Book::default();
        let of = |book: &Book, who: &str, bytes| book.held(who, bytes, false);
        assert_eq!(book.admit("x", &of(&book, "a", 101), bounds), Err(NoRoom::Bytes));
        book.set("x", Some(of(&book, "a", 25)));
        book.set("y", Some(of(&book, "b", 25)));
        assert_eq!(book.admit("z", &of(&book, "a", 1), bounds), Err(NoRoom::OfOne));
        assert_eq!(book.admit("x", &of(&book, "a", 26), bounds), Err(NoRoom::OfOne));
        assert_eq!(book.admit("x", &of(&book, "a", 24), bounds), Ok(()));
        assert_eq!(book.admit("z", &of(&book, "c", 25), bounds), Ok(()));
    }
}
