//! What the gateway watches of itself and of its devices while it runs: its tasks, the canary's way to the cloud, the hourly
//! self-check, the files and certificates that it uses, the program on disk, and the signals of the devices' publishes.

pub(crate) mod canary;
pub(crate) mod certificate_ends;
pub(crate) mod files;
mod program;
pub(crate) mod self_check;
pub(crate) mod signals;
pub(crate) mod tasks;
