//! The log's handle and its parts.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};

use crate::clock::Clock;
use crate::commit::producer::Producer;
use crate::error::{CommitError, OpenError, ReadError};
use crate::inspect::audit::{self, Audit, LedgerLine};
use crate::inspect::inspector::Inspector;
use crate::intake::job::{RequeueError, Requeued};
use crate::io::directory::Directory;
use crate::listener::{CommitListener, Settled, Tap};
use crate::options::Options;
use crate::progress::stream::Outcome;
use crate::read::reader::Reader;
use crate::read::suspended::{self, Suspension, SuspensionKey};
use crate::record::{Epoch, Offset, PartitionSet, Record, Settlement, StreamId};
use crate::recovery::open;
use crate::shared::Shared;
use crate::stats::{Observer, StartReport, Stats, Status};
use crate::sync::lock;

/// An open log. Cheap to clone; the last one dropped closes it.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    writer: ThreadId,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What [`Log::open`] gives.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: Log,
    /// What was found.
    pub report: StartReport,
}

impl Log {
    /// Opens the log, or makes it, and starts its writer thread. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        options: Options,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        tap: Option<Box<dyn Tap>>,
    ) -> Result<Opened, OpenError> {
        let directory = open::real_directory(&options)?;
        Self::open_in(directory, options, clock, observer, tap)
    }

    pub(crate) fn open_in(
        directory: Arc<dyn Directory>,
        options: Options,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        tap: Option<Box<dyn Tap>>,
    ) -> Result<Opened, OpenError> {
        let (shared, thread, report) = open::open(directory, options, clock, observer, tap)?;
        Ok(Opened {
            log: Self {
                handle: Arc::new(Handle {
                    shared,
                    writer: thread.thread().id(),
                    thread: Mutex::new(Some(thread)),
                }),
            },
            report,
        })
    }

    /// A log whose writer is run step by step by the caller's thread.
    #[cfg(test)]
    pub(crate) fn stepped(shared: Arc<Shared>) -> Self {
        Self {
            handle: Arc::new(Handle {
                shared,
                writer: std::thread::current().id(),
                thread: Mutex::new(None),
            }),
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The id of a configured stream.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<StreamId> {
        self.shared()
            .streams
            .iter()
            .find(|(_, options)| options.name == name)
            .map(|(id, _)| *id)
    }

    /// The name of a stream, for ids and labels.
    #[must_use]
    pub fn stream_name(&self, stream: StreamId) -> Option<String> {
        lock(&self.shared().catalogue).stream(stream.0).map(|stream| stream.name.clone())
    }

    /// The directory's epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared().epoch
    }

    /// A producer whose commits `listener` hears of.
    #[must_use]
    pub fn producer(&self, listener: Arc<dyn CommitListener>) -> Producer {
        Producer::new(self.handle.shared.clone(), listener)
    }

    /// A reader of the stream's waiting records in `partitions`, from the oldest on.
    #[must_use]
    pub fn reader(&self, stream: StreamId, partitions: PartitionSet) -> Reader {
        Reader::new(self.handle.shared.clone(), stream, partitions)
    }

    /// Calls `wake` after every commit that brought records for `stream`, and when a reader that stopped because too much
    /// was settled behind records that are not may go on; on the writer thread: it must not block.
    pub fn on_commit(&self, stream: StreamId, wake: Box<dyn Fn() + Send + Sync>) {
        lock(&self.shared().wakes).push((stream, Arc::from(wake)));
    }

    /// Says what became of a record that a reader yielded. Kept in memory; durable with the next commit, or one of its
    /// own within 200 ms.
    ///
    /// Internal streams ([`StreamId::LOCAL`], [`StreamId::DEAD`]) are trimmed: settling a record there settles all
    /// before it too, read or not.
    pub fn settle(&self, stream: StreamId, offset: Offset, settlement: Settlement) -> Settled {
        let outcome = match settlement {
            Settlement::Delivered => Outcome::Delivered,
            Settlement::Expired => Outcome::Expired,
            Settlement::Dead { reason, detail } => Outcome::Dead { reason, detail },
        };
        let (first, dirty) = {
            let mut tracker = lock(&self.shared().tracker);
            let first = if stream >= StreamId::LOCAL {
                tracker.trim(stream.0, offset.0 + 1)
            } else {
                tracker.settle(stream.0, offset.0, outcome)
            };
            (first, !tracker.pending.is_empty())
        };
        if dirty {
            self.shared().mark_dirty();
        }
        if first {
            Settled::First
        } else {
            self.shared().stats.late_settlements.fetch_add(1, Ordering::Relaxed);
            Settled::Late
        }
    }

    /// Suspends a pair of route and device from `from` on: its records stay waiting and readers pass them by.
    /// Does nothing when the pair is suspended already.
    pub fn suspend(&self, key: SuspensionKey, from: Offset) {
        let suspended = lock(&self.shared().tracker).suspend(key.stream.0, &key.route, &key.identity, from.0);
        if let Some(unsure) = suspended {
            unsure
                .into_iter()
                .for_each(|segment| self.shared().mark_unsure(segment, key.stream.0));
            self.shared().mark_dirty();
        }
    }

    /// All suspended pairs of a stream.
    #[must_use]
    pub fn suspensions(&self, stream: StreamId) -> Vec<Suspension> {
        let tracker = lock(&self.shared().tracker);
        let suspensions = tracker
            .streams
            .get(&stream.0)
            .map(|tracked| tracked.suspensions.as_slice())
            .unwrap_or_default();
        suspensions
            .iter()
            .filter(|suspension| suspension.is_active(suspension.pair))
            .map(|suspension| Suspension {
                key: SuspensionKey {
                    stream,
                    route: suspension.route.clone(),
                    identity: suspension.identity.clone(),
                },
                next: Offset(suspension.next()),
            })
            .collect()
    }

    /// The oldest waiting records of a suspended pair, at most `max_records`, in offset order. Blocks on the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_suspended(&self, key: &SuspensionKey, max_records: usize) -> Result<Vec<Record>, ReadError> {
        suspended::read(self.shared(), key, max_records)
    }

    /// Ends a suspension if none of its records below the reader's position is left waiting; says whether it ended.
    /// Blocks on the disk when records were passed by that nobody has looked at.
    pub fn resume(&self, key: &SuspensionKey) -> bool {
        suspended::resume(self.shared(), key)
    }

    /// Puts dead letters back: each is appended to its stream again under its first id and leaves the dead letters, in one
    /// commit. Letters whose stream is gone or full, or that are damaged, stay. Blocks on the disk; not for listeners.
    ///
    /// # Errors
    /// See [`RequeueError`].
    pub fn requeue(&self, letters: &[Offset]) -> Result<Requeued, RequeueError> {
        self.shared().requeue(letters)
    }

    /// Drops dead letters for good; gives how many went. Blocks on the disk; not for listeners.
    ///
    /// # Errors
    /// See [`RequeueError`].
    pub fn drop_dead(&self, letters: &[Offset]) -> Result<u64, RequeueError> {
        self.shared().drop_dead(letters)
    }

    /// Appends again records that are settled but still in a segment, under their first ids, counted as requeued. Blocks on
    /// the disk; not for listeners.
    ///
    /// # Errors
    /// See [`RequeueError`].
    pub fn replay(&self, stream: StreamId, offsets: &[Offset]) -> Result<Requeued, RequeueError> {
        self.shared().replay(stream, offsets)
    }

    /// Forgets the last trusted time on disk, in a commit of its own. A clock that is trusted writes its own time with the next commit.
    /// Says whether there was one. Blocks on the disk; not for listeners.
    ///
    /// # Errors
    /// See [`RequeueError`].
    pub fn forget_trusted_time(&self) -> Result<bool, RequeueError> {
        self.shared().forget_time()
    }

    /// Says what files beside the directory take on disk: it counts in `max_disk` from the next commit on.
    pub fn note_beside(&self, allocated: u64) {
        self.shared().beside_bytes.store(allocated, Ordering::Relaxed);
    }

    /// Counters since start.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared().stats
    }

    /// How many records of a stream are kept in memory, between their reading and the commit that counts them.
    #[must_use]
    pub fn unsettled(&self, stream: StreamId) -> usize {
        let tracker = lock(&self.shared().tracker);
        tracker.streams.get(&stream.0).map_or(0, |tracked| tracked.outstanding.len())
    }

    /// Below this offset all records of a stream that the log keeps for its user ([`StreamId::LOCAL`]) are settled: what
    /// follows them, and has applied less, has missed some.
    #[must_use]
    pub fn settled_below(&self, stream: StreamId) -> Offset {
        let tracker = lock(&self.shared().tracker);
        Offset(tracker.streams.get(&stream.0).map_or(0, |tracked| tracked.floor))
    }

    /// Whether the writer thread runs: false after [`Log::close`], and after a fault of ours that only a restart repairs.
    /// A log that cannot write at the moment is alive; [`Log::status`] says why it cannot.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shared().alive.load(Ordering::Acquire)
    }

    /// The log at a glance, from memory; ages and disk figures are a second old at most.
    #[must_use]
    pub fn status(&self) -> Status {
        audit::status(self.shared())
    }

    /// Recounts the ledger by reading every waiting record. Blocks on the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn audit(&self) -> Result<Audit, ReadError> {
        audit::audit(self.shared())
    }

    /// The ledger as a whole at this moment, with what is settled in memory; `waiting` is what the other counts leave over, and equals
    /// that of the streams when nothing is appended. [`Log::audit`] counts it by reading.
    #[must_use]
    pub fn totals(&self) -> Audit {
        audit::at_this_moment(self.shared())
    }

    /// The ledger's lines, one per device and one named `other` for those beyond `max_devices`, as of the last commit.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerLine> {
        audit::lines(&lock(&self.shared().catalogue))
    }

    /// Looks at the running log without changing it.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::running(self.handle.shared.clone())
    }

    /// Commits what is pending, closes the segment cleanly and ends the writer thread. Later appends are refused.
    ///
    /// # Errors
    /// The last commit's.
    pub fn close(&self) -> Result<(), CommitError> {
        self.handle.close()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("directory", &self.shared().options.directory)
            .finish_non_exhaustive()
    }
}

impl Handle {
    fn close(&self) -> Result<(), CommitError> {
        lock(&self.shared.intake).closing = true;
        self.shared.bell.notify_one();
        if self.writer == std::thread::current().id() {
            // Closed inside a listener: the writer cannot wait for itself.
            return Ok(());
        }
        let mut ended = lock(&self.shared.ended);
        while ended.is_none() {
            ended = self.shared.ended_bell.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
        let result = ended.clone().unwrap_or(Ok(()));
        drop(ended);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            thread.join().ok();
        }
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the log's last commit failed");
        }
    }
}
