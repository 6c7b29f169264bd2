//! Opening a log, and repair of what a power cut or a damaged disk left.

mod begin;
pub(crate) mod counted;
mod fault;
pub(crate) mod newest;
pub(crate) mod open;
pub(crate) mod rebuild;
pub(crate) mod salvage;
