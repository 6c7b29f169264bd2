//! What the gateway watches of itself and of its devices while it runs: the canary's way to the cloud, the hourly
//! self-check, and the signals of the devices' publishes.

pub(crate) mod canary;
pub(crate) mod files;
pub(crate) mod self_check;
pub(crate) mod signals;
