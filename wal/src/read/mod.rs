//! Readers of waiting records, of suspended pairs, and of single records.

pub(crate) mod lookup;
pub(crate) mod oldest;
pub(crate) mod reader;
pub(crate) mod stretch;
pub(crate) mod suspended;
