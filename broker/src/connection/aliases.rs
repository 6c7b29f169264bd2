//! Topic aliases towards the peer of one connection (MQTT 5, 3.3.2.3.4).
//!
//! The first topics get one; none is ever given to another topic. An alias is used only behind the packet that sets it, in the order of the
//! connection's bytes: this table is kept under the lock of the outbox, and what leaves the outbox unsent takes its alias with it. Another
//! connection begins with none, so what is sent again there has its topic.
//!
//! Bounds, part of what a connection takes idle: the peer's Topic Alias Maximum, [`MAX_ALIASES`], [`MAX_BYTES`].

use std::num::NonZeroU16;

/// The most that are used, whatever the peer allows.
const MAX_ALIASES: u16 = 16;
/// Bytes of their topics.
const MAX_BYTES: usize = 2048;
/// A topic that is shorter is not worth one: the alias takes three bytes.
const MIN_TOPIC: usize = 4;

/// The aliases that stand, the first topic first.
pub(super) struct Aliases {
    most: usize,
    topics: Vec<Box<[u8]>>,
    bytes: usize,
}

/// How a topic is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// In full.
    Plain,
    /// By an alias that stands.
    Known(NonZeroU16),
    /// In full, and with an alias that stands once [`Aliases::set`] has been called.
    New(NonZeroU16),
}

impl Aliases {
    /// The peer's Topic Alias Maximum: without one it takes none (MQTT-3.1.2-27).
    pub(super) fn new(maximum: u16) -> Self {
        Self {
            most: usize::from(maximum.min(MAX_ALIASES)),
            topics: Vec::new(),
            bytes: 0,
        }
    }

    /// How this topic may be sent.
    pub(super) fn of(&self, topic: &[u8]) -> Named {
        if self.most == 0 {
            return Named::Plain;
        }
        if let Some(place) = self.topics.iter().position(|known| **known == *topic) {
            return alias(place).map_or(Named::Plain, Named::Known);
        }
        let has_room = self.topics.len() < self.most && self.bytes + topic.len() <= MAX_BYTES;
        if topic.len() < MIN_TOPIC || !has_room {
            return Named::Plain;
        }
        alias(self.topics.len()).map_or(Named::Plain, Named::New)
    }

    /// A packet that sets the next alias has been written.
    pub(super) fn set(&mut self, topic: &[u8]) {
        self.bytes += topic.len();
        self.topics.push(topic.into());
    }

    /// How many stand.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// Forgets those that were set since there were so many: their packets are not sent.
    pub(super) fn truncate(&mut self, len: usize) {
        self.topics.truncate(len);
        self.bytes = self.topics.iter().map(|topic| topic.len()).sum();
    }
}

fn alias(place: usize) -> Option<NonZeroU16> {
    u16::try_from(place + 1).ok().and_then(NonZeroU16::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_aliases_stand_than_the_peer_and_the_bounds_allow() {
        for (maximum, length, expected) in [
            (0, 10, 0),
            (1, 10, 1),
            (5, 10, 5),
            (u16::MAX, 10, 16),
            (u16::MAX, 500, 4),
            (16, 3, 0),
            (16, 3000, 0),
        ] {
            let mut aliases = Aliases::new(maximum);
            let topic = |number: usize| format!("{number:0length$}").into_bytes();
            for number in 0..40 {
                match aliases.of(&topic(number)) {
                    Named::New(alias) => {
                        assert_eq!(usize::from(alias.get()), number + 1);
                        aliases.set(&topic(number));
                    }
                    other => assert_eq!((other, number >= expected), (Named::Plain, true)),
                }
            }
            assert_eq!(aliases.len(), expected, "{maximum} {length}");
            for number in 0..expected {
                assert!(matches!(aliases.of(&topic(number)), Named::Known(alias) if usize::from(alias.get()) == number + 1));
            }
        }
    }

    #[test]
    fn an_alias_whose_packet_is_not_sent_does_not_stand() {
        let mut aliases = Aliases::new(2);
        aliases.set(b"one/x");
        let before = aliases.len();
        aliases.set(b"two/x");
        aliases.truncate(before);
        assert_eq!(aliases.of(b"two/x"), Named::New(NonZeroU16::new(2).unwrap()));
        assert_eq!((aliases.of(b"one/x"), aliases.bytes), (Named::Known(NonZeroU16::MIN), 5));
    }
}
