//! The suspended pair that is being tried.

use std::collections::VecDeque;

use forebay_wal::{HoldKey, ReadError, Record};
use tokio::task::JoinSet;

use crate::source::Item;

/// What a read of a suspended pair brought.
pub(crate) type HeldRead = (HoldKey, Result<Vec<Record>, ReadError>);

#[derive(Debug, Default)]
pub(crate) struct Probe {
    pub(crate) active: Option<HoldKey>,
    pub(crate) queue: VecDeque<Item>,
    pub(crate) outstanding: usize,
    pub(crate) stopped: bool,
    pub(crate) reads: JoinSet<HeldRead>,
}

impl Probe {
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.outstanding += 1;
        Some(item)
    }

    /// Whether records of a pair are to be sent, or in flight.
    pub(crate) fn is_sending(&self) -> bool {
        !self.queue.is_empty() || self.outstanding > 0
    }
}
