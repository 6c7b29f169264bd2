//! Brings `state.redb` up to the stream `local`, and restores the local state from both at a start.

use std::sync::Arc;
use std::time::Duration;

use forebay_wal::{CheckpointError, Log, Offset, PartitionSet, Reader, Record, Settlement, StreamId};
use tokio_util::sync::CancellationToken;

use super::entry::{Entry, read_entries};
use super::file::{StateError, StateFile};
use super::follower::Follower;

/// How long the checkpoint may stay behind.
const BEHIND: Duration = Duration::from_secs(2);
/// Bytes of records read at once.
const READ_BYTES: usize = 1 << 20;

/// Applies records of `local` to the checkpoint, a little behind the log.
pub(crate) struct Checkpointer {
    log: Log,
    reader: Reader,
    file: Arc<StateFile>,
    followers: Vec<Arc<dyn Follower>>,
}

/// What a start found of the local state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateReport {
    /// The checkpoint was damaged, and is kept beside a new one.
    pub is_quarantined: bool,
    /// The checkpoint was older than what the log has let go of: some sessions or retained messages are lost.
    pub is_lost: bool,
}

impl Checkpointer {
    pub(crate) fn new(log: &Log, file: Arc<StateFile>, followers: Vec<Arc<dyn Follower>>) -> Self {
        Self {
            log: log.clone(),
            reader: log.reader(StreamId::LOCAL, PartitionSet::ALL),
            file,
            followers,
        }
    }

    /// Gives the followers what the checkpoint has, then the records behind it. Records that the checkpoint has seen
    /// already are given once more: a later change of a key wins, so the outcome is the same, and a checkpoint that is
    /// older or newer than its log does no harm. Blocks on the disk.
    ///
    /// # Errors
    /// The checkpoint or the log could not be read.
    pub(crate) fn restore(&mut self) -> Result<StateReport, StateError> {
        let failed = |error: CheckpointError| self.file.failed(error);
        let checkpoint = self.file.reopened().map_err(failed)?;
        let report = StateReport {
            is_quarantined: self.file.is_quarantined(),
            is_lost: checkpoint.applied() < self.log.settled_below(StreamId::LOCAL),
        };
        if report.is_lost {
            tracing::error!(
                applied = checkpoint.applied().0,
                log_has_from = self.log.settled_below(StreamId::LOCAL).0,
                "sessions or retained messages are lost: their checkpoint is older than what the log has let go of; check the disk (`dmesg`)"
            );
        }
        for follower in &self.followers {
            follower.restore(&checkpoint).map_err(failed)?;
        }
        loop {
            let records = self.reader.read(READ_BYTES).map_err(|error| self.file.failed(error))?;
            if records.is_empty() {
                break;
            }
            for entry in entries(&records) {
                if let Some(owner) = self.followers.iter().find(|follower| follower.owns(&entry.0)) {
                    owner.restore_entry(entry, &checkpoint).map_err(|error| self.file.failed(error))?;
                }
            }
        }
        self.reader.rewind();
        if report.is_lost {
            // Told now, and not again at the next start.
            checkpoint.apply(&[], self.log.settled_below(StreamId::LOCAL)).map_err(failed)?;
        }
        self.log.note_beside(self.file.allocated());
        Ok(report)
    }

    /// Applies what was committed, a little behind or when [`StateFile::hurry`] asks for it, until `shutdown`. After a
    /// failed write the checkpoint is opened again: what it lacks is still in the log. It is closed at the end.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let file = Arc::clone(&self.file);
        loop {
            let is_last = tokio::select! {
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep(BEHIND) => false,
                () = file.hurried() => false,
            };
            let applied = tokio::task::spawn_blocking(move || {
                let is_well = self.apply_or_close();
                (self, is_well)
            })
            .await;
            let Ok((returned, is_well)) = applied else { return };
            self = returned;
            if is_last {
                file.close();
                return;
            }
            // A failed write is not tried again at once, however much waits.
            if !is_well && tokio::time::timeout(BEHIND, shutdown.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    fn apply_or_close(&mut self) -> bool {
        let Err(error) = self.apply_all() else { return true };
        tracing::warn!(%error, "the checkpoint of sessions and retained messages could not be written; their records stay in the log");
        self.file.close();
        self.reader.rewind();
        false
    }

    fn apply_all(&mut self) -> Result<(), StateError> {
        loop {
            let records = self.reader.read(READ_BYTES).map_err(|error| self.file.failed(error))?;
            let Some(last) = records.last() else { return Ok(()) };
            let through = Offset(last.offset.0 + 1);
            self.apply(&records, through).map_err(|error| self.file.failed(error))?;
            for record in &records {
                self.log.settle(StreamId::LOCAL, record.offset, Settlement::Delivered);
            }
        }
    }

    fn apply(&self, records: &[Record], through: Offset) -> Result<(), CheckpointError> {
        let checkpoint = self.file.reopened()?;
        let mut own: Vec<Vec<Entry>> = self.followers.iter().map(|_| Vec::new()).collect();
        // An entry without an owner is of a later version: it is kept for that as it is.
        let mut writes = Vec::new();
        for entry in entries(records) {
            let owner = self.followers.iter().position(|follower| follower.owns(&entry.0));
            owner.map_or(&mut writes, |owner| &mut own[owner]).push(entry);
        }
        let mut versions = Vec::with_capacity(own.len());
        for (follower, entries) in self.followers.iter().zip(own) {
            versions.push(follower.writes(entries, &checkpoint, &mut writes)?);
        }
        checkpoint.apply(&writes, through)?;
        self.log.note_beside(self.file.allocated());
        for (follower, version) in self.followers.iter().zip(versions) {
            follower.applied(version);
        }
        Ok(())
    }
}

fn entries(records: &[Record]) -> impl Iterator<Item = Entry> {
    records.iter().flat_map(|record| read_entries(&record.payload))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use forebay_wal::testing::{ManualClock, Unobserved};
    use forebay_wal::{Checkpoint, Clock, Options, Write};

    use super::super::entry::{record, write_entry};
    use super::*;
    use crate::commits::Commits;

    /// Owns the keys that begin with its letter.
    struct Letter {
        letter: u8,
        state: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
        applied: AtomicU64,
    }

    impl Letter {
        fn new(letter: u8) -> Arc<Self> {
            Arc::new(Self {
                letter,
                state: Mutex::default(),
                applied: AtomicU64::new(0),
            })
        }

        fn state(&self) -> Vec<(String, String)> {
            let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
            self.state
                .lock()
                .unwrap()
                .iter()
                .map(|(key, value)| (text(key), text(value)))
                .collect()
        }
    }

    impl Follower for Letter {
        fn owns(&self, key: &[u8]) -> bool {
            key.first() == Some(&self.letter)
        }

        fn restore(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
            checkpoint.for_each(|key, value| {
                if self.owns(key) {
                    self.state.lock().unwrap().insert(key.to_vec(), value.to_vec());
                }
            })
        }

        fn restore_entry(&self, (key, value): Entry, _: &Checkpoint) -> Result<(), CheckpointError> {
            let mut state = self.state.lock().unwrap();
            match value {
                Some(value) => drop(state.insert(key, value)),
                None => drop(state.remove(&key)),
            }
            Ok(())
        }

        fn writes(&self, entries: Vec<Entry>, _: &Checkpoint, out: &mut Vec<Write>) -> Result<u64, CheckpointError> {
            let count = entries.len() as u64;
            out.extend(entries);
            Ok(count)
        }

        fn applied(&self, version: u64) {
            self.applied.fetch_add(version, Ordering::AcqRel);
        }
    }

    fn open(directory: &Path) -> (Log, Arc<StateFile>) {
        let options = Options {
            directory: directory.join("log"),
            max_disk: 64 << 20,
            keep_free: 0,
            commit_wait: Duration::ZERO,
            max_devices: 1,
            streams: Vec::new(),
        };
        let opened = Log::open(options, Arc::new(ManualClock::trusted()), Arc::new(Unobserved), None).unwrap();
        let file = StateFile::open(&directory.join("state.redb")).unwrap();
        (opened.log, Arc::new(file))
    }

    async fn commit(log: &Log, entries: &[(&str, Option<&str>)]) {
        let mut payload = Vec::new();
        for (key, value) in entries {
            write_entry(key.as_bytes(), value.map(str::as_bytes), &mut payload);
        }
        let commits = Arc::<Commits>::default();
        let now = ManualClock::trusted().now();
        let ticket = log
            .producer(Arc::clone(&commits) as _)
            .append(&[record(now, "", &payload)])
            .unwrap();
        commits.wait(ticket.batch).await;
    }

    #[tokio::test]
    async fn each_follower_has_its_own_entries_and_those_without_one_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (log, file) = open(directory.path());
        let (a, b) = (Letter::new(b'a'), Letter::new(b'b'));
        let mut checkpointer = Checkpointer::new(&log, Arc::clone(&file), vec![Arc::clone(&a) as _, Arc::clone(&b) as _]);
        commit(&log, &[("a1", Some("old")), ("b1", Some("x")), ("later", Some("y"))]).await;
        assert!(checkpointer.apply_or_close());
        assert_eq!((a.applied.load(Ordering::Acquire), b.applied.load(Ordering::Acquire)), (1, 1));
        commit(&log, &[("a1", Some("new")), ("a2", Some("z")), ("b1", None)]).await;

        // As after a kill: the checkpoint lacks the second record.
        let (a, b) = (Letter::new(b'a'), Letter::new(b'b'));
        let mut checkpointer = Checkpointer::new(&log, Arc::clone(&file), vec![Arc::clone(&a) as _, Arc::clone(&b) as _]);
        checkpointer.restore().unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!((a.state(), b.state()), (vec![pair("a1", "new"), pair("a2", "z")], vec![]));
        assert!(checkpointer.apply_or_close());
        let checkpoint = file.current().unwrap();
        let stored = |key: &[u8]| checkpoint.value(key).unwrap();
        assert_eq!(stored(b"later"), Some(b"y".to_vec()), "an entry of a later version was lost");
        assert_eq!((stored(b"a1"), stored(b"b1")), (Some(b"new".to_vec()), None));
        log.close().unwrap();
    }
}
