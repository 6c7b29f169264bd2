//! LPS22HB: air pressure.

use embedded_hal_async::i2c::I2c;

use crate::register::{Chip, Fault};

const NUMBER: u8 = 0xb1;
const CTRL_REG1: u8 = 0x10;
const STATUS: u8 = 0x27;
const PRESS_OUT_XL: u8 = 0x28;
/// One measurement a second, block update. Register numbers rise by themselves after a reset.
const ON: u8 = 0b0001_0010;
const READY: u8 = 1;
/// Of the raw value per hectopascal.
const PER_HECTOPASCAL: i64 = 4096;

/// The sensor at the board's address.
#[derive(Clone, Copy, Debug)]
pub struct Lps22hb {
    chip: Chip,
}

impl Lps22hb {
    /// The sensor, not yet begun.
    pub const fn new() -> Self {
        Self {
            chip: Chip { address: 0x5d },
        }
    }

    /// Switches it on.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn begin<B: I2c>(&mut self, bus: &mut B) -> Result<(), Fault<B::Error>> {
        self.chip.must_be(bus, NUMBER).await?;
        self.chip.write(bus, CTRL_REG1, ON).await
    }

    /// Pressure in pascals.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read<B: I2c>(&mut self, bus: &mut B) -> Result<u32, Fault<B::Error>> {
        let [status] = self.chip.read(bus, STATUS).await?;
        if status & READY == 0 {
            return Err(Fault::NotReady);
        }
        let [low, middle, high] = self.chip.read(bus, PRESS_OUT_XL).await?;
        // 24 bits with a sign; a negative pressure is none.
        let raw = i32::from_le_bytes([0, low, middle, high]) >> 8;
        let pascals = (i64::from(raw) * 100 + PER_HECTOPASCAL / 2) / PER_HECTOPASCAL;
        Ok(u32::try_from(pascals).unwrap_or(0))
    }
}

impl Default for Lps22hb {
    fn default() -> Self {
        Self::new()
    }
}
