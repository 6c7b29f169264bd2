//! The emulated B-L475E-IOT01A: QEMU's machine `b-l475e-iot01a`.
//!
//! It runs the real instruction set on the real memory map, but most peripherals of the chip are stubs there and its flash is
//! read-only to the guest. What stands in for them:
//!
//! * [`flash`]: writes go to `flash.bin` in the emulator's folder by semihosting and show in memory after the next start.
//! * [`console`]: log lines, by semihosting.
//! * time from SysTick, faster on demand, and a watchdog on it once the application runs; randomness from a fixed seed; Wi-Fi over
//!   USART2; no sensors' bus.
#![no_std]

pub mod console;
mod fault;
pub mod flash;
pub mod semihosting;

#[cfg(feature = "app")]
mod app;
#[cfg(feature = "app")]
pub mod delivery;
#[cfg(feature = "app")]
mod platform;
#[cfg(feature = "app")]
mod time;
#[cfg(feature = "app")]
mod wifi;

#[cfg(feature = "app")]
pub use app::{NoBus, parts};
pub use fault::{end, reset};
#[cfg(feature = "app")]
pub use platform::{QemuPlatform, QemuPlatform as ThisPlatform};
#[cfg(feature = "app")]
pub use wifi::Wifi;

/// The hardware's name in a header. Not the real board's: neither accepts the other's images.
pub const HARDWARE: &str = "qemu-l475e-iot01";

/// What the bootloader does first. The emulator needs nothing.
pub fn begin_boot() {}

/// What the bootloader does last. The emulator needs nothing.
pub fn end_boot() {}

/// The watchdog, from before the jump on. The emulator's begins with the application's clock; its harness cuts the power of what hangs before.
pub fn start_watchdog() {}
