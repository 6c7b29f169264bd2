//! Driver for the ISM43362 Wi-Fi module.
#![no_std]
#![forbid(unsafe_code)]

/// The way to the module: SPI with its data-ready line on the board, a UART in the emulator and on the host.
pub trait Transport {
    /// What the bus fails with.
    type Error: core::fmt::Debug;

    /// Resets the module by its pin (a break on the UART) and waits until it has announced itself.
    fn reset(&mut self) -> impl Future<Output = Result<(), Self::Error>>;

    /// Sends a command line and what follows it, then reads the module's whole answer, prompt included, into `answer`. Gives the
    /// answer's length; dropping the future loses the exchange, after which only a [`reset`](Transport::reset) is sure to help.
    fn exchange(&mut self, command: &[u8], payload: &[u8], answer: &mut [u8]) -> impl Future<Output = Result<usize, Self::Error>>;
}
