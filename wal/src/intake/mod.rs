//! What is handed to the writer thread: the open batch that producers append to, and what a person asks for.

pub(crate) mod batch;
pub(crate) mod busy;
pub(crate) mod job;
pub(crate) mod slots;
