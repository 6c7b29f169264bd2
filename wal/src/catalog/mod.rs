//! What the newest segment says of all: its rows, replayed into streams, segments, progress and the ledger.

pub(crate) mod catalogue;
pub(crate) mod range_set;
pub(crate) mod replay;
