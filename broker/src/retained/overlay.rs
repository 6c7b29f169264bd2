//! Changes that are not in the checkpoint yet, in the order of the log.
//!
//! 1. A change is added when it is appended to the log. It is not visible yet.
//! 2. Its commit makes it visible, before any other listener is told of the commit. A failed commit removes it, and the
//!    topic is as it was.
//! 3. Once the checkpoint has it, it is removed here, and the generation increases: what was read from the checkpoint
//!    before may be old.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use forebay_wal::Batch;

use super::lookup::Span;
use super::message::{Change, RetainedMessage};
use super::quota::{Quota, Usage};

/// Bytes of memory of a change besides its content.
const OVERHEAD: usize = 384;

#[derive(Debug, Default)]
pub(super) struct Overlay {
    topics: BTreeMap<Arc<str>, Entry>,
    order: VecDeque<Appended>,
    /// How many at the front of `order` are committed.
    committed: usize,
    /// The newest version that the checkpoint has.
    applied: u64,
    generation: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Appended {
    version: u64,
    batch: Batch,
    topic: Arc<str>,
    cost: usize,
}

#[derive(Debug)]
struct Entry {
    /// What the topic has in the checkpoint.
    base: Option<Usage>,
    /// From old to new; the first is the only one that may be visible.
    versions: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    number: u64,
    is_committed: bool,
    message: Option<Arc<RetainedMessage>>,
    usage: Option<Usage>,
}

/// What a topic has here: a message, or `None` if it was removed.
pub(super) type Visible = (Arc<str>, Option<Arc<RetainedMessage>>);

impl Overlay {
    /// Adds a change that is to be committed with `batch`. `base` is what the topic counted for before.
    pub(super) fn append(&mut self, topic: &Arc<str>, change: Change, usage: Option<Usage>, base: Option<Usage>, batch: Batch) {
        let number = change.version();
        let message = match change {
            Change::Set(message) => Some(Arc::new(message)),
            Change::Removed(_) => None,
        };
        let content = message
            .as_ref()
            .map_or(0, |message| message.properties.len() + message.payload.len());
        let cost = OVERHEAD + topic.len() + content;
        self.bytes += cost;
        self.order.push_back(Appended {
            version: number,
            batch,
            topic: Arc::clone(topic),
            cost,
        });
        let entry = self.topics.entry(Arc::clone(topic)).or_insert(Entry {
            base,
            versions: Vec::with_capacity(1),
        });
        entry.versions.push(Version {
            number,
            is_committed: false,
            message,
            usage,
        });
    }

    /// Everything up to this batch is committed. Returns how many changes that concerned.
    pub(super) fn committed(&mut self, batch: Batch) -> u64 {
        let before = self.committed;
        while let Some(appended) = self.order.get(self.committed).filter(|appended| appended.batch <= batch) {
            self.committed += 1;
            let Some(entry) = self.topics.get_mut(&appended.topic) else {
                continue;
            };
            if let Some(at) = entry.versions.iter().position(|version| version.number == appended.version) {
                entry.versions[at].is_committed = true;
                entry.versions.drain(..at);
            }
        }
        let ended = (self.committed - before) as u64;
        // The checkpoint may have a change before this listener is told of its commit.
        self.applied(self.applied);
        ended
    }

    /// This batch's commit failed. Returns how many changes that concerned.
    pub(super) fn failed(&mut self, batch: Batch, quota: &mut Quota) -> u64 {
        let end = self.order.partition_point(|appended| appended.batch <= batch).max(self.committed);
        for appended in self.order.drain(self.committed..end).rev() {
            self.bytes -= appended.cost;
            let Some(entry) = self.topics.get_mut(&appended.topic) else {
                continue;
            };
            entry.versions.retain(|version| version.number != appended.version);
            match entry.versions.last() {
                Some(last) => quota.set(&appended.topic, last.usage),
                None => {
                    quota.set(&appended.topic, entry.base);
                    self.topics.remove(&appended.topic);
                }
            }
        }
        (end - self.committed) as u64
    }

    /// The checkpoint has everything up to this version.
    pub(super) fn applied(&mut self, version: u64) {
        self.applied = self.applied.max(version);
        let mut has_changed = false;
        while self.committed > 0
            && let Some(appended) = self.order.pop_front_if(|appended| appended.version <= self.applied)
        {
            self.committed -= 1;
            self.bytes -= appended.cost;
            let Some(entry) = self.topics.get_mut(&appended.topic) else {
                continue;
            };
            if let Some(first) = entry.versions.first().filter(|first| first.number == appended.version) {
                entry.base = first.usage;
                entry.versions.remove(0);
                has_changed = true;
            }
            if entry.versions.is_empty() {
                self.topics.remove(&appended.topic);
            }
        }
        self.generation += u64::from(has_changed);
    }

    /// The visible changes of a span from `from` on, at most `max` topics, and where the next slice begins if there are more.
    pub(super) fn slice(&self, span: &Span, from: &str, max: usize) -> (Vec<Visible>, Option<Arc<str>>) {
        let mut visible = Vec::new();
        let range = self.topics.range::<str, _>((Bound::Included(from), Bound::Unbounded));
        for (seen, (topic, entry)) in range.take_while(|(topic, _)| span.contains(topic)).enumerate() {
            if seen >= max {
                return (visible, Some(Arc::clone(topic)));
            }
            if let Some(first) = entry.versions.first().filter(|first| first.is_committed) {
                visible.push((Arc::clone(topic), first.message.clone()));
            }
        }
        (visible, None)
    }

    /// Whether what was read in `generation` is still the newest that is visible.
    pub(super) fn is_current(&self, topic: &str, version: u64, generation: u64) -> bool {
        let newest = self.topics.get(topic).and_then(|entry| entry.versions.first());
        self.generation == generation
            && newest
                .filter(|newest| newest.is_committed)
                .is_none_or(|newest| newest.number == version)
    }

    pub(super) fn contains(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Its memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use forebay_wal::{BootId, Timestamp};

    use super::super::message::Head;
    use super::*;

    fn set(topic: &str, version: u64) -> Change {
        Change::Set(RetainedMessage {
            topic: topic.into(),
            head: Head {
                version,
                received: Timestamp {
                    wall_ms: 0,
                    boot: BootId(1),
                    monotonic_ms: 0,
                    trusted: true,
                },
                qos: 0,
                expiry: None,
                properties_len: 0,
                payload_len: 1,
                identity: "d".into(),
            },
            properties: bytes::Bytes::new(),
            payload: bytes::Bytes::from_static(b"x"),
        })
    }

    struct Fixture {
        overlay: Overlay,
        quota: Quota,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                overlay: Overlay::default(),
                quota: Quota::default(),
            }
        }

        fn place(&mut self, topic: &str, version: u64, batch: u64, bytes: usize) {
            let base = self.quota.of(topic);
            let usage = (bytes > 0).then(|| self.quota.usage("d", bytes, false));
            let change = if bytes > 0 { set(topic, version) } else { Change::Removed(version) };
            self.quota.set(topic, usage);
            self.overlay.append(&topic.into(), change, usage, base, Batch(batch));
        }

        fn visible(&self) -> Vec<(String, Option<u64>)> {
            let (visible, _) = self.overlay.slice(&Span::all(), "", 100);
            visible
                .into_iter()
                .map(|(topic, message)| (topic.to_string(), message.map(|message| message.head.version)))
                .collect()
        }
    }

    #[test]
    fn a_change_is_seen_from_its_commit_on_until_the_checkpoint_has_it() {
        let mut fixture = Fixture::new();
        fixture.place("a", 1, 1, 5);
        fixture.place("b", 2, 2, 5);
        assert_eq!(fixture.visible(), []);
        fixture.overlay.committed(Batch(1));
        assert_eq!(fixture.visible(), [("a".to_owned(), Some(1))]);
        fixture.place("a", 3, 3, 0);
        assert_eq!(fixture.visible(), [("a".to_owned(), Some(1))]);
        fixture.overlay.committed(Batch(3));
        assert_eq!(fixture.visible(), [("a".to_owned(), None), ("b".to_owned(), Some(2))]);
        let before = fixture.overlay.generation();
        fixture.overlay.applied(2);
        assert_eq!(fixture.visible(), [("a".to_owned(), None)]);
        assert!(fixture.overlay.generation() > before);
        fixture.overlay.applied(3);
        assert_eq!((fixture.visible(), fixture.overlay.bytes()), (vec![], 0));
    }

    #[test]
    fn a_failed_commit_leaves_the_topic_as_it_was() {
        let mut fixture = Fixture::new();
        fixture.place("a", 1, 1, 5);
        fixture.overlay.committed(Batch(1));
        fixture.place("a", 2, 2, 50);
        fixture.place("a", 3, 2, 500);
        fixture.place("b", 4, 2, 7);
        fixture.place("a", 5, 3, 20);
        fixture.overlay.failed(Batch(2), &mut fixture.quota);
        assert_eq!(fixture.visible(), [("a".to_owned(), Some(1))]);
        assert_eq!((fixture.quota.len(), fixture.quota.bytes()), (1, 20), "what came after it counts");
        fixture.overlay.failed(Batch(3), &mut fixture.quota);
        assert_eq!((fixture.quota.len(), fixture.quota.bytes()), (1, 5));
        fixture.overlay.failed(Batch(3), &mut fixture.quota);
        fixture.overlay.applied(9);
        assert_eq!((fixture.visible(), fixture.overlay.bytes()), (vec![], 0));

        // What the checkpoint has is what a failure goes back to.
        fixture.place("a", 10, 4, 50);
        fixture.overlay.failed(Batch(4), &mut fixture.quota);
        assert_eq!((fixture.quota.len(), fixture.quota.bytes()), (1, 5));
    }

    #[test]
    fn a_checkpoint_may_have_a_change_before_its_commit_is_told() {
        let mut fixture = Fixture::new();
        fixture.place("a", 1, 1, 5);
        fixture.overlay.applied(1);
        fixture.overlay.committed(Batch(1));
        assert_eq!((fixture.visible(), fixture.overlay.bytes()), (vec![], 0));
    }

    #[test]
    fn what_was_read_before_a_newer_message_was_seen_is_not_current() {
        let mut fixture = Fixture::new();
        let generation = fixture.overlay.generation();
        assert!(fixture.overlay.is_current("a", 1, generation));
        fixture.place("a", 2, 1, 5);
        assert!(fixture.overlay.is_current("a", 1, generation));
        fixture.overlay.committed(Batch(1));
        assert!(!fixture.overlay.is_current("a", 1, generation));
        assert!(fixture.overlay.is_current("a", 2, generation));
        fixture.overlay.applied(2);
        assert!(!fixture.overlay.is_current("a", 1, generation));
    }
}
