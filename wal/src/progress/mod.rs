//! What became of records: settled up to where, outstanding, suspended, and what of it the next commit writes.

pub(crate) mod gauges;
pub(crate) mod ledger_delta;
pub(crate) mod offset_hasher;
pub(crate) mod pending;
pub(crate) mod stream;
pub(crate) mod tracker;
