//! Driver for the ISM43362 Wi-Fi module (Inventek eS-WiFi, AT firmware C3.5): TCP is in the module, the host asks for it.
//!
//! Every exchange is a command line and an answer that ends with a prompt. [`Module`] is the device core's network over any
//! [`Transport`]; [`Serial`] is the transport over a serial line.
//!
//! What holds:
//! 1. Every exchange has a deadline. One that was not over by then leaves the conversation in doubt: the module counts as
//!    broken, and everything fails with [`Lost::Module`](forebay_device_core::Lost) at once, until it is reset.
//! 2. Nothing of an answer is believed that does not have the answer's shape. No bytes panic the driver.
//! 3. Bytes are given on in the order in which the module had them, each once, or the connection ends.
#![no_std]
#![forbid(unsafe_code)]

mod answer;
mod command;
mod module;
mod serial;
mod socket;

pub use module::{Access, Module};
pub use serial::{Serial, SerialError};
pub use socket::Connection;

/// The way to the module: SPI with its data-ready line on the board, a UART in the emulator and on the host.
pub trait Transport {
    /// What the bus fails with.
    type Error: core::fmt::Debug;

    /// Resets the module by its pin (by its reset command where there is none) and waits until it has announced itself.
    fn reset(&mut self) -> impl Future<Output = Result<(), Self::Error>>;

    /// Sends a command line and what follows it, then reads the module's whole answer, prompt included, into `answer`. Gives the
    /// answer's length; dropping the future loses the exchange, after which only a [`reset`](Transport::reset) is sure to help.
    fn exchange(&mut self, command: &[u8], payload: &[u8], answer: &mut [u8]) -> impl Future<Output = Result<usize, Self::Error>>;
}
