//! Looking at a log, running or stopped, without changing it.

pub(crate) mod audit;
pub(crate) mod cursor;
pub(crate) mod inspector;
pub(crate) mod source;
pub(crate) mod stopped;
pub(crate) mod verify;
