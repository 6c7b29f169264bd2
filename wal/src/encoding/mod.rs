//! The bytes of records, blocks and rows of the catalogue: written, read, and found in damaged segments. Nothing here touches a disk.

pub(crate) mod block;
pub(crate) mod change;
pub(crate) mod dead_letter;
pub(crate) mod entry;
pub(crate) mod record;
pub(crate) mod row;
pub(crate) mod scan;
