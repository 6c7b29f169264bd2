//! Topics that the cloud has accepted lately, by hash: a record after which it closes is not denied for such a topic.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use forebay_wal::Record;

#[derive(Debug, Default)]
pub(super) struct AcceptedTopics {
    current: HashSet<u64>,
    previous: HashSet<u64>,
}

impl AcceptedTopics {
    const GENERATION: usize = 4096;

    fn key(record: &Record) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&record.route, &record.identity, &record.topic).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn accepted(&mut self, record: &Record) {
        self.current.insert(Self::key(record));
        if self.current.len() >= Self::GENERATION {
            self.previous = std::mem::take(&mut self.current);
        }
    }

    pub(super) fn knows(&self, record: &Record) -> bool {
        let key = Self::key(record);
        self.current.contains(&key) || self.previous.contains(&key)
    }
}
