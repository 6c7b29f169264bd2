//! The B-L475E-IOT01A (STM32L475VG).
//!
//! Built, linted and linked in every full test run; **never run on a board by this project's tests**. What only real hardware can prove is
//! listed in `firmware/PROTECTION.md` and `firmware/README.md`.
//!
//! The bootloader uses registers only: [`flash`], [`console`], the clock, the watchdog, [`protect`]. The application (feature `app`)
//! stands on embassy-stm32 for everything else.
#![no_std]

mod clock;
pub mod console;
mod fault;
pub mod flash;
pub mod protect;
mod watchdog;

#[cfg(feature = "app")]
mod app;
#[cfg(feature = "app")]
mod platform;
#[cfg(feature = "app")]
mod wifi;

#[cfg(feature = "app")]
pub use app::{Sensors, parts};
pub use fault::{end, reset};
#[cfg(feature = "app")]
pub use platform::{IotPlatform, IotPlatform as ThisPlatform};
pub use watchdog::start_watchdog;
#[cfg(feature = "app")]
pub use wifi::{Wifi, WifiError};

/// The hardware's name in a header.
pub const HARDWARE: &str = "b-l475e-iot01a";

/// What the bootloader does last: the clock as a reset leaves it.
pub fn end_boot() {
    clock::as_after_reset();
}

/// What the bootloader does first: a faster clock, so that verifying takes a second and not ten, and a console.
pub fn begin_boot() {
    clock::fast();
    console::open(clock::FAST_HZ);
    #[cfg(feature = "finish")]
    protect::finish();
}
