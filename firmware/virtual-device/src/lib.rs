//! The device on a host: the very core and TLS of the firmware, over TCP instead of a radio module, with simulated sensors
//! and with flash in memory or in a file.
//!
//! One [`VirtualDevice`] is one device. Its future does not leave its thread: run it in a `tokio::task::LocalSet`. Thousands
//! fit one thread.
#![forbid(unsafe_code)]

mod clock;
mod device;
mod flash;
pub mod module;
mod network;
mod sensors;

pub use clock::HostClock;
pub use device::{Credentials, Handle, NotUsable, Options, Outcome, Status, VirtualDevice};
pub use flash::{Flash, FlashError};
pub use network::TcpNetwork;
pub use sensors::SimulatedSensors;
