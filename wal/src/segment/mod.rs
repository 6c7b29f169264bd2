//! The redb files in which the log lies: one is appended to, one is made ahead, the others are read.

pub(crate) mod blocks;
pub(crate) mod database;
pub(crate) mod failed_starts;
pub(crate) mod identity;
pub(crate) mod life;
pub(crate) mod lock_file;
pub(crate) mod page_fill;
pub(crate) mod quarantine;
pub(crate) mod remains;
pub(crate) mod removal;
pub(crate) mod reuse;
pub(crate) mod search;
pub(crate) mod segments;
pub(crate) mod table;
