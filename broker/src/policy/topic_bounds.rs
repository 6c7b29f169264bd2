//! How long and how deep a peer's topics and filters may be, and of which characters.
//!
//! The protocol allows 65,535 bytes, and so as many levels (MQTT-4.7.3-3). Each level of a filter is a node of memory and
//! each level of a topic is a step of work, both on ground that all devices share.

use crate::limits::Limits;

/// `limits.max_levels` and `limits.max_topic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicBounds {
    max_levels: usize,
    max_bytes: usize,
}

/// A topic or filter is over a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OverBound {
    #[error("it has {bytes} bytes; `limits.max_topic` allows {limit}")]
    Bytes { bytes: usize, limit: usize },
    #[error("it has {levels} levels; `limits.max_levels` allows {limit}")]
    Levels { levels: usize, limit: usize },
    /// MQTT 5 section 1.5.4 lets a receiver close over it, and clouds do, so that nothing behind it would arrive.
    #[error("it has the character U+{:04X}, which brokers refuse; look for bytes in the topic that are no text", u32::from(*.0))]
    Character(char),
}

impl TopicBounds {
    pub(crate) const fn of(limits: &Limits) -> Self {
        Self {
            max_levels: limits.max_levels,
            max_bytes: limits.max_topic,
        }
    }

    /// The longest topic or filter in bytes.
    pub(crate) const fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Checks a topic or a filter as it came.
    pub(crate) fn check(&self, text: &str) -> Result<(), OverBound> {
        if text.len() > self.max_bytes {
            return Err(OverBound::Bytes {
                bytes: text.len(),
                limit: self.max_bytes,
            });
        }
        let levels = 1 + text.bytes().filter(|byte| *byte == b'/').count();
        if levels > self.max_levels {
            return Err(OverBound::Levels {
                levels,
                limit: self.max_levels,
            });
        }
        text.chars()
            .find(|c| is_refused(*c))
            .map_or(Ok(()), |c| Err(OverBound::Character(c)))
    }
}

/// Control characters and those that Unicode will never assign (MQTT 5 section 1.5.4).
fn is_refused(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_at_the_bound_is_allowed_and_one_beyond_is_not() {
        let bounds = TopicBounds {
            max_levels: 3,
            max_bytes: 10,
        };
        assert_eq!(bounds.check("a/b/c"), Ok(()));
        assert_eq!(bounds.check("0123456789"), Ok(()));
        assert_eq!(bounds.check("a/b/c/"), Err(OverBound::Levels { levels: 4, limit: 3 }));
        assert_eq!(bounds.check("0123456789a"), Err(OverBound::Bytes { bytes: 11, limit: 10 }));
    }

    #[test]
    fn e5_a_topic_holds_no_character_that_a_broker_closes_over() {
        let bounds = TopicBounds::of(&Limits::default());
        let refused = (1..0x20)
            .chain(0x7f..0xa0)
            .chain(0xfdd0..0xfdf0)
            .chain([0xfffe, 0xffff, 0x1fffe, 0x10_ffff]);
        for c in refused.map(|code| char::from_u32(code).unwrap()) {
            for topic in [format!("{c}"), format!("a/{c}/b"), format!("a/b{c}")] {
                assert_eq!(bounds.check(&topic), Err(OverBound::Character(c)), "{topic:?}");
            }
        }
        for topic in ["a b/ü/日本/🌡", "~/\u{a0}", "\u{200b}"] {
            assert_eq!(bounds.check(topic), Ok(()));
        }
    }
}
