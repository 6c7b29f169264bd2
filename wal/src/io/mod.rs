//! What touches a disk: a directory and its files, for reading only, with counters, with failures told, compared with what was written.

pub(crate) mod checked;
pub(crate) mod directory;
pub(crate) mod lock_guard;
pub(crate) mod metered;
pub(crate) mod read_only;
pub(crate) mod real_directory;
pub(crate) mod watched;
