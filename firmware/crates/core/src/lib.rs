//! What the device does, without the device.
//!
//! Everything here is `no_std` and owns no hardware: the clock, the network, the flash, the watchdog and randomness are
//! arguments. The board, the emulator and the host's virtual devices run the same code.
#![no_std]
#![forbid(unsafe_code)]

mod backoff;
mod clock;
mod journal;
mod network;
mod notes;
mod queue;
mod sample;
mod wall;

pub use backoff::{Backoff, Random};
pub use clock::{Clock, Uptime};
pub use journal::{Journal, NotWritten};
pub use network::{Lost, Network, Secure, Socket};
pub use notes::{Cause, NotNoted, Note, Notes};
pub use queue::{Queue, QueueCounters, RAM_SAMPLES};
pub use sample::{Reading, Sample, SampleId};
pub use wall::{Told, WallClock, WallTime};
