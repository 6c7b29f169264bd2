//! What the device does, without the device.
//!
//! Everything here is `no_std` and owns no hardware: the clock, the network, the flash, the watchdog and randomness are
//! arguments. The board, the emulator and the host's virtual devices run the same code.
//!
//! Buffers are allocated, once per boot or per connection: as parts of futures they would be moved over a small stack.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod backoff;
mod clock;
mod journal;
mod json;
mod ladder;
mod mqtt;
mod network;
mod notes;
mod progress;
mod queue;
mod report;
mod run;
mod sample;
mod session;
mod state;
mod wall;
mod window;

pub use backoff::{Backoff, Random, Retry};
pub use clock::{Clock, Uptime};
pub use journal::{Journal, NotWritten};
pub use ladder::{FAILURES_PER_RESET, Ladder, RESETS_BEFORE_REBOOT, Rung, SILENCE_BEFORE_REBOOT};
pub use network::{Lost, Network, Secure, Socket};
pub use notes::{Cause, NotNoted, Note, Notes};
pub use progress::{CONNECTING_LIMIT, Progress};
pub use queue::{Queue, QueueCounters, RAM_SAMPLES};
pub use run::{Exit, Parts, Probe, Watchdog, run};
pub use sample::{Reading, Sample, SampleId};
pub use state::{Counters, Settings, State};
pub use wall::{Told, WallClock, WallTime};
