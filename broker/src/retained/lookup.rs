//! Finds the retained messages for a new subscription: by ranges of the sorted topics, a page at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_topic::{PeerText, TopicFilter};
use forebay_wal::{CheckpointError, Snapshot, Timestamp};

use super::Retained;
use super::message::{HEAD, Head, RetainedMessage, body_key, head_key};

/// Bytes of messages in a page, if it has more than one.
pub(super) const PAGE_BYTES: usize = 32 << 10;
/// Topics read for one page.
const PAGE_TOPICS: usize = 4096;
/// Topics that are not in the checkpoint, read under the lock that commits wait for.
const OVERLAY_TOPICS: usize = 512;

/// A range of the sorted topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    prefix: String,
    /// Only the prefix itself.
    is_exact: bool,
}

/// Some of the messages of a range.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Arc<RetainedMessage>>,
    /// Where the next one begins.
    pub(crate) next: Option<String>,
    generation: u64,
}

/// Some of the topics whose message has expired.
pub(super) struct ExpiredPage {
    pub(super) topics: Vec<Arc<str>>,
    /// Where the next one begins.
    pub(super) next: Option<String>,
    pub(super) generation: u64,
}

/// What a page is to contain.
pub(crate) struct Wanted {
    pub(crate) span: Span,
    pub(crate) from: String,
    pub(crate) filter: TopicFilter,
    pub(crate) now: Timestamp,
    /// The most messages of it, one at least.
    pub(crate) most: usize,
}

impl Span {
    /// The ranges that contain all topics that match the filter.
    pub(crate) fn of(filter: &TopicFilter) -> Vec<Self> {
        let text = filter.as_str();
        let Some(wildcard) = text.find(['+', '#']) else {
            return vec![Self::exact(text)];
        };
        let literal = &text[..wildcard];
        let all = Self {
            prefix: literal.to_owned(),
            is_exact: false,
        };
        match literal.strip_suffix('/') {
            // `a/#` matches `a` too (MQTT 5, 4.7.1.2), and other topics may come between it and `a/`, such as `a!`.
            Some(parent) if &text[wildcard..] == "#" => vec![Self::exact(parent), all],
            _ => vec![all],
        }
    }

    /// All topics.
    #[cfg(test)]
    pub(super) fn all() -> Self {
        Self {
            prefix: String::new(),
            is_exact: false,
        }
    }

    fn exact(topic: &str) -> Self {
        Self {
            prefix: topic.to_owned(),
            is_exact: true,
        }
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> String {
        self.prefix.clone()
    }

    /// For topics from its start on.
    pub(super) fn contains(&self, topic: &str) -> bool {
        if self.is_exact {
            topic == self.prefix
        } else {
            topic.starts_with(&self.prefix)
        }
    }
}

impl Page {
    /// Whether this message of the page is still the newest of its topic.
    pub(crate) fn is_current(&self, message: &RetainedMessage, retained: &Retained) -> bool {
        retained
            .lock()
            .overlay
            .is_current(&message.topic, message.head.version, self.generation)
    }
}

impl Retained {
    /// The next page of the messages that are wanted. Read on a blocking thread, two at a time.
    ///
    /// # Errors
    /// The checkpoint could not be read.
    pub(crate) async fn page(self: &Arc<Self>, wanted: Wanted) -> Result<Page, LookupError> {
        let retained = Arc::clone(self);
        let _permit = self.lookups.acquire().await.map_err(|_| LookupError::Closed)?;
        tokio::task::spawn_blocking(move || retained.read_page(&wanted))
            .await
            .map_err(|_| LookupError::Closed)?
    }

    /// Blocks on the disk.
    fn read_page(&self, wanted: &Wanted) -> Result<Page, LookupError> {
        // In this order: what leaves the overlay meanwhile is in the checkpoint, and the generation shows it.
        let (generation, visible, mut next) = {
            let state = self.lock();
            let (visible, more) = state.overlay.slice(&wanted.span, &wanted.from, OVERLAY_TOPICS);
            (state.overlay.generation(), visible, more.map(|topic| topic.to_string()))
        };
        let visible: BTreeMap<Arc<str>, Option<Arc<RetainedMessage>>> = visible.into_iter().collect();
        let snapshot = self.file.current().ok_or(LookupError::Closed)?.snapshot()?;
        let (stored, cut) = read_stored(&snapshot, wanted, &visible, next.as_deref())?;
        if cut.is_some() {
            next = cut;
        }
        let mut messages: Vec<_> = visible
            .into_iter()
            .filter_map(|(topic, message)| {
                let is_wanted = wanted.filter.matches(&topic) && next.as_deref().is_none_or(|next| *topic < *next);
                message.filter(|message| is_wanted && message.head.remaining(&wanted.now).is_ok())
            })
            .chain(stored)
            .collect();
        messages.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
        let mut bytes = 0;
        let mut fits = |message: &Arc<RetainedMessage>| {
            let is_first = bytes == 0;
            bytes += message.head.bytes(&message.topic);
            is_first || bytes <= PAGE_BYTES
        };
        let count = messages.iter().take(wanted.most).take_while(|message| fits(message)).count();
        if let Some(first) = messages.get(count) {
            next = Some(first.topic.to_string());
            messages.truncate(count);
        }
        Ok(Page {
            messages,
            next,
            generation,
        })
    }

    /// Topics in the checkpoint whose message has expired, as [`Head::is_over`] says, from `from` on, and where to go on. Blocks on the disk.
    pub(super) fn read_expired(&self, from: &str, now: &Timestamp, since: Option<&Timestamp>) -> Result<ExpiredPage, LookupError> {
        let mut page = ExpiredPage {
            topics: Vec::new(),
            next: None,
            generation: self.lock().overlay.generation(),
        };
        let snapshot = self.file.current().ok_or(LookupError::Closed)?.snapshot()?;
        let mut seen = 0;
        visit_heads(&snapshot, from, |topic, head| {
            seen += 1;
            if head.is_over(now, since) {
                page.topics.push(topic.into());
            }
            if seen >= PAGE_TOPICS {
                page.next = Some(after(topic));
            }
            page.next.is_none()
        })?;
        Ok(page)
    }
}

/// Why retained messages could not be looked up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("the checkpoint could not be read")]
    Checkpoint(#[from] CheckpointError),
    #[error("the checkpoint is closed at the moment")]
    Closed,
}

/// The wanted messages of the checkpoint that have no newer change, and where the next page begins if there may be more.
fn read_stored(
    snapshot: &Snapshot,
    wanted: &Wanted,
    hidden: &BTreeMap<Arc<str>, Option<Arc<RetainedMessage>>>,
    until: Option<&str>,
) -> Result<(Vec<Arc<RetainedMessage>>, Option<String>), LookupError> {
    let (mut heads, mut next, mut seen, mut bytes) = (Vec::new(), None, 0, 0);
    visit_heads(snapshot, &wanted.from, |topic, head| {
        if !wanted.span.contains(topic) || until.is_some_and(|until| topic >= until) {
            return false;
        }
        seen += 1;
        if !hidden.contains_key(topic) && wanted.filter.matches(topic) && head.remaining(&wanted.now).is_ok() {
            bytes += head.bytes(topic);
            heads.push((Arc::<str>::from(topic), head));
        }
        if seen >= PAGE_TOPICS || bytes >= PAGE_BYTES || heads.len() >= wanted.most {
            next = Some(after(topic));
        }
        next.is_none()
    })?;
    let mut messages = Vec::with_capacity(heads.len());
    for (topic, head) in heads {
        let body = snapshot.value(&body_key(&topic))?.unwrap_or_default();
        match RetainedMessage::join(Arc::clone(&topic), head, Bytes::from(body)) {
            Some(message) => messages.push(Arc::new(message)),
            None => tracing::error!(
                topic = ?PeerText::new(&topic),
                "a retained message is damaged and is not sent; publish it again, and check the disk"
            ),
        }
    }
    Ok((messages, next))
}

/// Visits the heads in the checkpoint from a topic on, until `visit` returns false.
pub(super) fn visit_heads(snapshot: &Snapshot, from: &str, mut visit: impl FnMut(&str, Head) -> bool) -> Result<(), CheckpointError> {
    snapshot.visit_from(&head_key(from.as_bytes()), |key, value| {
        let Some((&HEAD, topic)) = key.split_first() else { return false };
        match (std::str::from_utf8(topic), Head::parse(value)) {
            (Ok(topic), Some((head, _))) => visit(topic, head),
            _ => true,
        }
    })
}

/// The first key after a topic: no topic contains U+0000 (MQTT-4.7.3-2).
fn after(topic: &str) -> String {
    format!("{topic}\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spans_of_a_filter_hold_all_that_it_matches() {
        let topics = ["a", "a!", "a/", "a/b", "a/b/c", "ab", "b", "$SYS/a", "/", "a/ü"];
        for text in ["#", "+", "a", "a/#", "a/+", "+/b", "a/b/#", "/#", "a/+/c", "$SYS/#", "/+"] {
            let filter = TopicFilter::parse(text).unwrap();
            let spans = Span::of(&filter);
            for topic in topics {
                let within = spans.iter().filter(|span| topic >= &*span.start() && span.contains(topic)).count();
                assert!(within <= 1, "{text} finds {topic} {within} times");
                assert!(within == 1 || !filter.matches(topic), "{text} misses {topic}");
            }
        }
    }

    #[test]
    fn a_filter_without_wildcards_looks_at_one_topic() {
        let spans = Span::of(&TopicFilter::parse("a/b").unwrap());
        assert_eq!(spans, [Span::exact("a/b")]);
    }
}
