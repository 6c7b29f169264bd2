//! Appending.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::encoding::block::INDEX;
use crate::encoding::record;
use crate::error::AppendError;
use crate::intake::batch::Intake;
use crate::intake::busy;
use crate::listener::{CommitListener, Ticket};
use crate::options::WhenFull;
use crate::record::{NewRecord, Offset, StreamId};
use crate::shared::{LOCAL_BYTES, Shared};
use crate::sync::lock;

/// Bytes that may wait for the disk before more is refused.
const MAX_PENDING: usize = 64 << 20;
/// Bytes at which the writer stops waiting for more.
const ENOUGH: usize = 1 << 20;

/// Appends for one connection, in order. A clone appends for another one; their listener hears of a batch once for all of them.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    /// The device of the last append and its place in the ledger.
    last: (String, u32),
}

struct Listener {
    told: Arc<dyn CommitListener>,
    /// The batch that knows it already. Changed under the lock of the intake.
    known_to: AtomicU64,
}

/// No batch has this number.
const NONE: u64 = u64::MAX;

impl Producer {
    pub(crate) fn new(shared: Arc<Shared>, told: Arc<dyn CommitListener>) -> Self {
        let listener = Listener {
            told,
            known_to: AtomicU64::new(NONE),
        };
        Self {
            shared,
            listener: Arc::new(listener),
            last: (String::new(), 0),
        }
    }

    /// Takes all of `records` into the open batch, or none.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&mut self, records: &[NewRecord<'_>]) -> Result<Ticket, AppendError> {
        for record in records {
            record::fits(record).map_err(|(bytes, limit)| AppendError::TooLarge { bytes, limit })?;
        }
        let shared = self.shared.clone();
        let mut intake = lock(&shared.intake);
        self.admit(&intake, records)?;
        let before = intake.open.data.len();
        let was_empty = intake.open.is_empty();
        let mut first = None;
        let mut first_user = None;
        for record in records {
            let slot = self.slot(&mut intake, record);
            let offset = Offset(intake.take(record, slot, None));
            shared.gauges.enter(record.stream.0, 1, cost(record, false));
            first = first.or(Some(offset));
            first_user = first_user.or((record.stream < StreamId::LOCAL).then_some(offset));
        }
        let batch = intake.open.number;
        if self.listener.known_to.swap(batch.0, Ordering::Relaxed) != batch.0 {
            intake.open.listeners.push(self.listener.told.clone());
        }
        if was_empty {
            intake.open.since = Some(Instant::now());
        }
        busy::appended(&shared);
        let enough = before < ENOUGH && intake.open.data.len() >= ENOUGH;
        drop(intake);
        if was_empty || enough {
            shared.bell.notify_one();
        }
        Ok(Ticket {
            batch,
            offset: first_user.or(first).unwrap_or_default(),
        })
    }

    fn admit(&self, intake: &Intake, records: &[NewRecord<'_>]) -> Result<(), AppendError> {
        if intake.closing {
            return Err(AppendError::Closed);
        }
        if let Some(reason) = &intake.unavailable {
            return Err(AppendError::Unavailable { reason: reason.clone() });
        }
        if intake.disk_full && !records.is_empty() {
            return Err(AppendError::DiskFull);
        }
        if intake.open.data.len() > MAX_PENDING {
            let reason = format!(
                "{} MiB already wait for the disk, which is too slow for this load",
                MAX_PENDING >> 20
            );
            return Err(AppendError::Unavailable { reason });
        }
        for (nth, record) in records.iter().enumerate() {
            let stream = record.stream;
            let seen = records[..nth].iter().any(|earlier| earlier.stream == stream);
            if seen {
                continue;
            }
            let same = records.iter().filter(|other| other.stream == stream);
            let added: u64 = same.map(|record| cost(record, false)).sum();
            let bytes = self.shared.gauges.bytes(stream.0) + added;
            if stream == StreamId::LOCAL {
                if bytes > LOCAL_BYTES {
                    return Err(AppendError::LocalFull { limit: LOCAL_BYTES });
                }
                continue;
            }
            let options = self.shared.policy(stream.0).ok_or(AppendError::UnknownStream { stream })?;
            if options.when_full == WhenFull::Refuse && bytes > options.max_bytes {
                return Err(AppendError::StreamFull { stream });
            }
        }
        Ok(())
    }

    fn slot(&mut self, intake: &mut Intake, record: &NewRecord<'_>) -> u32 {
        if record.stream >= StreamId::LOCAL {
            return 0;
        }
        if self.last.0 != record.identity {
            self.last = (record.identity.to_owned(), intake.slots.of(record.identity));
        }
        self.last.1
    }
}

/// What a record counts for in its stream's bound; one that is put back carries its first id.
pub(crate) fn cost(record: &NewRecord<'_>, is_put_back: bool) -> u64 {
    (record::encoded_len(record, is_put_back) + INDEX) as u64
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("known_to", &self.listener.known_to)
            .finish_non_exhaustive()
    }
}
