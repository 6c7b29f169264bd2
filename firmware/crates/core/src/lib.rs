//! What the device does, without the device.
//!
//! Everything here is `no_std` and owns no hardware: the clock, the network, the flash, the watchdog and randomness are
//! arguments. The board, the emulator and the host's virtual devices run the same code.
#![no_std]
#![forbid(unsafe_code)]

mod clock;
mod network;
mod wall;

pub use clock::{Clock, Uptime};
pub use network::{Lost, Network, Secure, Socket};
pub use wall::{Told, WallClock, WallTime};
