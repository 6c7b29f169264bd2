//! What touches a disk: a directory and its files, for reading only or with counters.

pub(crate) mod directory;
pub(crate) mod metered;
pub(crate) mod read_only;
