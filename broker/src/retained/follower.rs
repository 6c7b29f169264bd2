//! What the checkpoint has of retained messages, and what their entries of the log change in it.

use forebay_wal::{Batch, Checkpoint, CheckpointError, Write};

use super::message::{self, Change, Head, TAG};
use super::{Retained, lookup};
use crate::local_state::{Entry, Follower};

impl Follower for Retained {
    fn owns(&self, key: &[u8]) -> bool {
        key.first() == Some(&TAG)
    }

    fn restore(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut state = self.lock();
        lookup::visit_heads(&checkpoint.snapshot()?, "", |topic, head| {
            state.next_version = state.next_version.max(head.version);
            let usage = state.quota.usage(&head.identity, head.bytes(topic), head.expiry.is_some());
            state.quota.set(topic, Some(usage));
            true
        })?;
        self.count(&state);
        Ok(())
    }

    fn restore_entry(&self, (key, value): Entry, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let Some((topic, change)) = parse(&key, value.as_deref()) else {
            return Ok(());
        };
        if !is_news(topic, &change, checkpoint)? {
            return Ok(());
        }
        let mut state = self.lock();
        state.next_version = state.next_version.max(change.version());
        let usage = match &change {
            Change::Set(message) => Some(state.quota.usage(
                &message.head.identity,
                message.head.bytes(topic),
                message.head.expiry.is_some(),
            )),
            Change::Removed(_) => None,
        };
        let base = state.quota.of(topic);
        state.quota.set(topic, usage);
        state.overlay.append(&topic.into(), change, usage, base, Batch(0));
        state.overlay.committed(Batch(0));
        self.count(&state);
        Ok(())
    }

    fn writes(&self, entries: Vec<Entry>, checkpoint: &Checkpoint, out: &mut Vec<Write>) -> Result<u64, CheckpointError> {
        let mut version = 0;
        for (key, value) in entries {
            let Some((topic, change)) = parse(&key, value.as_deref()) else {
                continue;
            };
            if is_news(topic, &change, checkpoint)? {
                out.extend(change.writes(topic));
            }
            version = version.max(change.version());
        }
        Ok(version)
    }

    fn applied(&self, version: u64) {
        self.lock().overlay.applied(version);
    }
}

/// After a restart old records are read once more. If one of them is damaged, the one before it must not win.
fn is_news(topic: &str, change: &Change, checkpoint: &Checkpoint) -> Result<bool, CheckpointError> {
    let stored = checkpoint.value(&message::head_key(topic.as_bytes()))?;
    let stored = stored.as_deref().and_then(Head::parse).map(|(head, _)| head.version);
    Ok(stored.is_none_or(|stored| change.version() > stored))
}

fn parse<'k>(key: &'k [u8], value: Option<&[u8]>) -> Option<(&'k str, Change)> {
    let (&TAG, topic) = key.split_first()? else { return None };
    let topic = std::str::from_utf8(topic).ok()?;
    Some((topic, Change::decode(topic, value?)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use forebay_wal::{BootId, Offset, Timestamp};

    use super::super::message::RetainedMessage;
    use super::*;
    use crate::budget::Budget;
    use crate::limits::Limits;
    use crate::local_state::StateFile;

    fn set(topic: &str, version: u64) -> Vec<u8> {
        let payload = Bytes::from(version.to_string());
        let head = Head {
            version,
            received: Timestamp {
                wall_ms: 0,
                boot: BootId(1),
                monotonic_ms: 0,
                trusted: true,
            },
            qos: 1,
            expiry: None,
            properties_len: 0,
            payload_len: payload.len(),
            identity: "d".into(),
        };
        let topic = topic.into();
        let properties = Bytes::new();
        Change::Set(RetainedMessage {
            topic,
            head,
            properties,
            payload,
        })
        .encode()
    }

    #[test]
    fn an_old_record_that_is_read_once_more_does_not_win() {
        let directory = tempfile::tempdir().unwrap();
        let file = Arc::new(StateFile::open(&directory.path().join("state.redb")).unwrap());
        let checkpoint = file.current().unwrap();
        let retained = || {
            let retained = Retained::new(
                10,
                1_000,
                Arc::default(),
                Arc::new(Budget::new(&Limits::default())),
                Arc::clone(&file),
            );
            retained.restore(&checkpoint).unwrap();
            retained
        };
        let entry = |version| (message::key(TAG, b"a"), Some(set("a", version)));
        let writes = |retained: &Retained, version| {
            let mut out = Vec::new();
            let newest = retained.writes(vec![entry(version)], &checkpoint, &mut out).unwrap();
            (newest, out)
        };
        let (version, first) = writes(&retained(), 2);
        assert_eq!((version, first.len()), (2, 2));
        checkpoint.apply(&first, Offset(1)).unwrap();

        let retained = retained();
        retained.restore_entry(entry(1), &checkpoint).unwrap();
        assert!(!retained.lock().overlay.contains("a"));
        assert_eq!(writes(&retained, 1), (1, vec![]));
        retained.restore_entry(entry(3), &checkpoint).unwrap();
        assert!(retained.lock().overlay.contains("a"));
        assert_eq!(retained.lock().take_version(), 4, "versions go on rising");
    }
}
