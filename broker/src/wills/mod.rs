//! Wills in the log: they outlive the process as long as they may have to be published.
//!
//! 1. A will is committed before its CONNACK.
//! 2. It is removed when its client says DISCONNECT, when its session is resumed before its delay is over, and by the record of
//!    its own publish, if it has one: then a kill publishes it neither twice nor never.
//! 3. When a connection is lost and there is a delay, it notes since when.
//! 4. A start publishes those whose client was connected when the process ended, and those whose delay is over, and waits for the others.
//!
//! While the log cannot be written, a will is kept in memory alone. What it takes is charged where it is held (`will_bytes`).

mod stored;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_wal::{Clock, Log};

pub(crate) use stored::{StoredWill, StoredWills};

use crate::codec::Will;
use crate::commits::{Commits, Outcome};
use crate::local_state::{record, write_entry};
use crate::session::SessionKey;

/// The wills of the log.
pub(crate) struct Wills {
    log: Log,
    clock: Arc<dyn Clock>,
    last_number: AtomicU64,
}

/// The number of a will that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WillNumber(u64);

impl Wills {
    /// New ones get numbers above this one.
    pub(crate) fn new(log: &Log, clock: &Arc<dyn Clock>, last_number: u64) -> Self {
        Self {
            log: log.clone(),
            clock: Arc::clone(clock),
            last_number: AtomicU64::new(last_number),
        }
    }

    /// Commits the will of a client that connects; `None` if the log cannot.
    pub(crate) async fn keep(&self, key: &SessionKey, will: &Will) -> Option<WillNumber> {
        let number = WillNumber(self.last_number.fetch_add(1, Ordering::Relaxed) + 1);
        let entry = StoredWill {
            number,
            key: key.clone(),
            will: will.clone(),
            detached: None,
        };
        let commits = Arc::new(Commits::default());
        let batch = self.append(&key.identity, &entry.encode(), &commits)?;
        (commits.wait(batch).await == Outcome::Committed).then_some(number)
    }

    /// Notes that the client is gone and the will waits for this many seconds.
    pub(crate) fn note_delay(&self, number: WillNumber, key: &SessionKey, will: &Will, delay: u32) {
        let mut will = will.clone();
        will.properties.delay = Some(delay);
        let entry = StoredWill {
            number,
            key: key.clone(),
            will,
            detached: Some(self.clock.now()),
        };
        // If the log cannot, the delay begins again with a start.
        self.append(&key.identity, &entry.encode(), &Arc::default());
    }

    /// Removes a will that is not to be published any more.
    pub(crate) fn forget(&self, number: WillNumber, key: &SessionKey) {
        // If the log cannot, it is published after a start although it should not be: better than one that is missing.
        self.append(&key.identity, &removal(number), &Arc::default());
    }

    fn append(&self, identity: &str, entry: &[u8], commits: &Arc<Commits>) -> Option<forebay_wal::Batch> {
        let mut producer = self.log.producer(Arc::clone(commits) as _);
        let ticket = producer.append(&[record(self.clock.now(), identity, entry)]);
        ticket.ok().map(|ticket| ticket.batch)
    }
}

/// The entry that removes a will.
pub(crate) fn removal(number: WillNumber) -> Vec<u8> {
    let mut out = Vec::new();
    write_entry(&stored::key(number), None, &mut out);
    out
}
