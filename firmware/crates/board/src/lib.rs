//! What the application asks of the board it runs on.
//!
//! Three implementations: `board-iot01a` (the real one), `board-qemu` (the emulated one) and the host's virtual device. The
//! application takes a [`Parts`] and runs on it; it never names a board.
//!
//! # The application's duties
//!
//! 1. It feeds the watchdog only when something has progressed: the bootloader started it before the jump, with about 30 s.
//! 2. An image on trial calls `confirm` (see `forebay-image`) only after its self-test: connected, published, acked. One that does not
//!    is given up at its second failed try.
//! 3. Every way to end is [`Platform::reset`]; a panic ends there as well.
#![no_std]
#![forbid(unsafe_code)]

use embedded_hal_async::delay::DelayNs;
use embedded_hal_async::i2c::I2c;
use forebay_flash::NorFlash;

/// Everything a board hands to the application.
pub struct Parts<P, D, F, W, I> {
    /// Randomness, watchdog, reset, clock: what needs no bus.
    pub platform: P,
    /// Waits.
    pub delay: D,
    /// The whole flash; `forebay_flash::map` says what is where.
    pub flash: F,
    /// The way to the Wi-Fi module: SPI on the board, a UART in the emulator.
    pub wifi: W,
    /// The sensors' bus.
    pub sensors: I,
}

/// A board: names the types of its [`Parts`].
pub trait Board {
    /// See [`Parts::platform`].
    type Platform: Platform;
    /// See [`Parts::delay`].
    type Delay: DelayNs;
    /// See [`Parts::flash`].
    type Flash: NorFlash;
    /// See [`Parts::wifi`]; implements the transport trait of `forebay-eswifi`.
    type Wifi;
    /// See [`Parts::sensors`].
    type Sensors: I2c;
}

/// What needs no bus.
pub trait Platform {
    /// Milliseconds since the start, monotonic.
    fn now_ms(&self) -> u64;

    /// Fills `into` with randomness fit for keys.
    ///
    /// # Errors
    /// [`NoEntropy`] if the generator failed its health test; the caller must not go on to TLS.
    fn entropy(&mut self, into: &mut [u8]) -> Result<(), NoEntropy>;

    /// Tells the watchdog that something has progressed.
    fn feed_watchdog(&mut self);

    /// Ends this run. On the host's virtual device it returns to whoever restarts it.
    fn reset(&mut self) -> !;

    /// Why the last run ended.
    fn reset_cause(&self) -> ResetCause;

    /// The chip's own number, the same at every boot.
    fn chip_id(&self) -> [u8; 12];

    /// The die's temperature in hundredths of a degree Celsius, if the board can tell.
    fn die_temperature(&mut self) -> Option<i32>;

    /// The stack, now.
    fn stack(&self) -> StackUse;
}

/// The random generator cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

/// Why the last run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetCause {
    /// Power came.
    PowerOn,
    /// The reset pin.
    Pin,
    /// The program asked for it.
    Software,
    /// The watchdog was not fed.
    Watchdog,
    /// The supply voltage fell.
    BrownOut,
    /// Anything else, or the board cannot tell.
    Unknown,
}

/// How far the stack has grown since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackUse {
    /// Bytes reserved for it.
    pub size: u32,
    /// The most bytes it has used.
    pub most: u32,
}
