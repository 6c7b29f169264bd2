//! What the application asks of the board it runs on.
//!
//! Two boards answer: `board-iot01a` (the real one) and `board-qemu` (the emulated one). The application takes a [`Parts`] and runs on it.
//!
//! # The application's duties
//!
//! 1. It feeds the watchdog only when something has progressed: the bootloader started it before the jump, with about 30 s.
//! 2. An image on trial calls `confirm` (see `forebay-image`) only after its self-test: connected, published, acked. One that does not
//!    is given up at its second failed try.
//! 3. Every way to end is the board's `reset`; a panic ends there as well.
#![no_std]
#![forbid(unsafe_code)]

/// Everything a board hands to the application.
pub struct Parts<P, F, W, I> {
    /// What needs no bus: a [`Platform`].
    pub platform: P,
    /// The whole flash; `forebay_flash::map` says what is where.
    pub flash: F,
    /// The way to the Wi-Fi module: SPI on the board, a UART in the emulator.
    pub wifi: W,
    /// The sensors' bus.
    pub sensors: I,
}

/// What needs no bus.
pub trait Platform {
    /// Fills `into` with randomness fit for keys.
    ///
    /// # Errors
    /// [`NoEntropy`] if the generator failed its health test; the caller must not go on to TLS.
    fn entropy(&mut self, into: &mut [u8]) -> Result<(), NoEntropy>;

    /// Tells the watchdog that something has progressed.
    fn feed_watchdog(&mut self);

    /// Why the last run ended.
    fn reset_cause(&self) -> ResetCause;

    /// The die's temperature in hundredths of a degree Celsius, if the board can tell.
    fn die_temperature(&mut self) -> Option<i32>;
}

/// The random generator cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

/// Why the last run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetCause {
    /// Power came, or came back after a brown-out.
    PowerOn,
    /// The reset pin.
    Pin,
    /// The program asked for it.
    Software,
    /// The watchdog was not fed.
    Watchdog,
    /// Anything else, or the board cannot tell.
    Unknown,
}
