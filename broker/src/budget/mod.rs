//! A budget for everything a peer leaves behind: it is charged to its owner and to the whole before it is taken, and given
//! back when it ends.
//!
//! [`Bound`] is the one table. What grows with peers is charged to an [`Account`] or counted where it is kept; a bound that is
//! reached is noted here, so that `/status` and the metrics know it. A tenth of each account is kept for identities that are
//! a fixed word, and shares do not bind those.

mod account;
mod bound;
mod reached;
mod uncommitted;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub(crate) use account::{Account, Charge, Owner};
pub use bound::{Bound, Line, Unit};
pub use reached::Lasting;
pub(crate) use reached::{Exceeded, Reached};
pub(crate) use uncommitted::{Line as UncommittedLine, Room, Uncommitted};

use crate::limits::Limits;

/// The accounts of one gateway, and which bounds were reached.
#[derive(Debug)]
pub struct Budget {
    /// Connections of all identities together, from accept on.
    pub(crate) connections: Arc<Account>,
    /// Connections past CONNECT, by identity; each access rule has its share.
    pub(crate) places: Arc<Account>,
    pub(crate) output_bytes: Arc<Account>,
    pub(crate) alias_bytes: Arc<Account>,
    /// Packets that have not come whole.
    pub(crate) input_bytes: Arc<Account>,
    input_waiting: Arc<AtomicUsize>,
    /// Wills, those that wait for their delay too.
    pub(crate) will_bytes: Arc<Account>,
    /// Subscriptions and packet ids of sessions, connected or not.
    pub(crate) session_bytes: Arc<Account>,
    /// Messages that sessions are owed at QoS 1 and 2, and packet ids of those in flight.
    pub(crate) owed_bytes: Arc<Account>,
    /// Bytes of publishes that are not committed yet.
    pub(crate) uncommitted: Arc<Uncommitted>,
    reached: Arc<Reached>,
}

/// A connection waits for room.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a bound is now.
#[derive(Clone, Debug)]
pub struct BoundStatus {
    /// The bound.
    pub bound: Bound,
    /// How often it was reached since the start.
    pub reached: u64,
    /// What is taken of it, and what may be; `None` if it has no account.
    pub taken: Option<(u64, u64)>,
    /// Whether it was reached within the last minute.
    pub lasting: Option<Lasting>,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let reached = Arc::<Reached>::default();
        let pool = |bound, whole: usize, share: u64| {
            let whole = whole as u64;
            Account::new(bound, whole, whole / 10, share, Arc::clone(&reached))
        };
        let connections = limits.max_connections as u64;
        // The reserve is on top: the configured number is what devices may have.
        let reserve = connections.div_ceil(10);
        Self {
            connections: Account::new(Bound::Connections, connections + reserve, reserve, u64::MAX, Arc::clone(&reached)),
            places: Account::new(Bound::Connections, u64::MAX, 0, u64::MAX, Arc::clone(&reached)),
            output_bytes: pool(Bound::OutputBytes, limits.max_output_bytes, limits.output_share()),
            session_bytes: pool(Bound::SessionBytes, limits.max_session_pool, limits.session_share()),
            owed_bytes: pool(Bound::OwedBytes, limits.max_owed_bytes, limits.owed_share()),
            alias_bytes: pool(Bound::AliasBytes, limits.max_alias_bytes, limits.alias_share()),
            input_bytes: pool(Bound::InputBytes, limits.max_input_bytes, limits.input_share()),
            input_waiting: Arc::default(),
            will_bytes: pool(Bound::WillBytes, limits.max_will_bytes, limits.will_share()),
            uncommitted: Uncommitted::new(limits, Arc::clone(&reached)),
            reached,
        }
    }

    /// Counts a connection that is not read for want of room, until this is dropped.
    pub(crate) fn wait_for_input(&self) -> Waiting {
        self.input_waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(&self.input_waiting))
    }

    /// Whether a connection is not read for want of room.
    pub(crate) fn waits_for_input(&self) -> bool {
        self.input_waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether half of the room for packets that have not come whole is taken.
    pub(crate) fn is_input_scarce(&self) -> bool {
        self.input_bytes.taken() > self.input_bytes.whole() / 2
    }

    /// Notes that a bound was reached that is kept elsewhere.
    pub(crate) fn note(&self, exceeded: Exceeded, owner: &Owner) {
        self.reached.note(exceeded, owner);
    }

    /// How often a bound was reached since the start.
    #[must_use]
    pub fn reached(&self, bound: Bound) -> u64 {
        self.reached.total(bound)
    }

    /// All bounds, in the order of the table.
    #[must_use]
    pub fn status(&self) -> Vec<BoundStatus> {
        let lasting = self.reached.lasting(Instant::now());
        let status = |bound: &Bound| BoundStatus {
            bound: *bound,
            reached: self.reached(*bound),
            taken: self.taken(*bound),
            lasting: lasting.iter().find(|lasting| lasting.bound == *bound).cloned(),
        };
        Bound::ALL.iter().map(status).collect()
    }

    fn taken(&self, bound: Bound) -> Option<(u64, u64)> {
        let account = match bound {
            Bound::Connections => &self.connections,
            Bound::OutputBytes => &self.output_bytes,
            Bound::AliasBytes => &self.alias_bytes,
            Bound::InputBytes => &self.input_bytes,
            Bound::WillBytes => &self.will_bytes,
            Bound::SessionBytes => &self.session_bytes,
            Bound::OwedBytes => &self.owed_bytes,
            Bound::UncommittedBytes => return Some((self.uncommitted.taken() as u64, self.uncommitted.whole() as u64)),
            _ => return None,
        };
        Some((account.taken(), account.whole()))
    }
}
