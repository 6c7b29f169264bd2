//! Topic filters and matching.

use std::fmt;

use crate::name::MAX_BYTES;

/// A valid topic filter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Box<str>);

/// What a filter's wildcards matched in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures<'t> {
    /// What each `+` matched, in order.
    pub levels: Vec<&'t str>,
    /// What `#` matched, without the separator before it: `None` if the filter has no `#`, empty if it matched the parent level.
    pub tail: Option<&'t str>,
}

/// Why a string is not a topic filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Filters have at least one character (MQTT-4.7.3-1).
    #[error("the filter is empty")]
    Empty,
    /// `#` is alone in the last level (MQTT-4.7.1-2).
    #[error("`#` may only be the whole last level, as in `devices/#`")]
    Hash,
    /// `+` fills its level (MQTT-4.7.1-3).
    #[error("`+` must be a whole level, as in `devices/+/alarm`")]
    Plus,
    /// U+0000 is forbidden (MQTT-4.7.3-2).
    #[error("the filter contains the character U+0000")]
    Nul,
    /// Longer than its length field allows (MQTT-4.7.3-3).
    #[error("the filter has {0} bytes; the limit is 65535")]
    TooLong(usize),
}

impl TopicFilter {
    /// Parses a filter.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(FilterError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(FilterError::Nul);
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(FilterError::Hash);
            }
            if level.contains('+') && level != "+" {
                return Err(FilterError::Plus);
            }
        }
        Ok(Self(text.into()))
    }

    /// The filter as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many `+` it has: `{1}` up to this number can be used in a template.
    #[must_use]
    pub fn plus_count(&self) -> usize {
        self.0.split('/').filter(|level| *level == "+").count()
    }

    /// Whether it ends in `#`.
    #[must_use]
    pub fn has_tail(&self) -> bool {
        self.0.ends_with('#')
    }

    /// Whether the topic matches. Wildcards in the first level never match a topic that begins with `$` (MQTT-4.7.2-1).
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        walk(&self.0, topic, |_| {}).is_some()
    }

    /// What the wildcards matched; `None` if the topic does not match.
    #[must_use]
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let mut levels = Vec::new();
        let tail = walk(&self.0, topic, |level| levels.push(level))?;
        Some(Captures { levels, tail })
    }

    /// Whether every topic that matches `other` matches this filter too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let first_is_wildcard = self.0.starts_with(['+', '#']);
        if first_is_wildcard && other.0.starts_with('$') {
            return false;
        }
        let mut theirs = other.0.split('/');
        for mine in self.0.split('/') {
            if mine == "#" {
                return true;
            }
            match theirs.next() {
                None | Some("#") => return false,
                Some(level) if mine != "+" && mine != level => return false,
                Some(_) => {}
            }
        }
        theirs.next().is_none()
    }

    /// Whether some topic matches both filters.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        if (a.starts_with('$') && b.starts_with(['+', '#'])) || (b.starts_with('$') && a.starts_with(['+', '#'])) {
            return false;
        }
        let (mut left, mut right) = (a.split('/'), b.split('/'));
        loop {
            match (left.next(), right.next()) {
                (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(l), Some(r)) if l != r && l != "+" && r != "+" => return false,
                _ => {}
            }
        }
    }
}

/// Walks both strings level by level. `None` if they do not match; `Some(tail)` with what `#` matched if they do.
fn walk<'t>(filter: &str, topic: &'t str, mut plus: impl FnMut(&'t str)) -> Option<Option<&'t str>> {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return None;
    }
    let mut rest = Some(topic);
    for level in filter.split('/') {
        if level == "#" {
            return Some(Some(rest.unwrap_or("")));
        }
        let (here, after) = match rest?.split_once('/') {
            Some((here, after)) => (here, Some(after)),
            None => (rest?, None),
        };
        if level == "+" {
            plus(here);
        } else if level != here {
            return None;
        }
        rest = after;
    }
    rest.is_none().then_some(None)
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::str::FromStr for TopicFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }

    #[test]
    fn filters_match_as_section_4_7_says() {
        for (pattern, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("é/+", "é/x", true),
        ] {
            assert_eq!(filter(pattern).matches(topic), expected, "{pattern} against {topic}");
        }
    }

    #[test]
    fn malformed_filters_are_refused_with_their_rule() {
        assert_eq!(TopicFilter::parse(""), Err(FilterError::Empty));
        assert_eq!(TopicFilter::parse("a#"), Err(FilterError::Hash));
        assert_eq!(TopicFilter::parse("#/a"), Err(FilterError::Hash));
        assert_eq!(TopicFilter::parse("a+/b"), Err(FilterError::Plus));
        assert_eq!(TopicFilter::parse("a\0"), Err(FilterError::Nul));
    }

    #[test]
    fn captures_are_what_each_wildcard_stood_for() {
        let filter = filter("devices/+/telemetry/#");
        let captures = filter.captures("devices/d1/telemetry/env/temp").unwrap();
        assert_eq!((captures.levels, captures.tail), (vec!["d1"], Some("env/temp")));
        assert_eq!(filter.captures("devices/d1/telemetry").unwrap().tail, Some(""));
    }

    #[test]
    fn covers_and_overlaps_agree_with_matching() {
        for (a, b, covers, overlaps) in [
            ("devices/#", "devices/+/x", true, true),
            ("devices/+", "devices/#", false, true),
            ("devices/+/x", "devices/a/x", true, true),
            ("devices/a/#", "devices/+/alarm", false, true),
            ("a/b", "a/c", false, false),
            ("a/#", "a", true, true),
            ("#", "$SYS/a", false, false),
        ] {
            assert_eq!(
                (filter(a).covers(&filter(b)), filter(a).overlaps(&filter(b))),
                (covers, overlaps),
                "{a} and {b}"
            );
        }
    }
}
