//! LIS3MDL: magnetic field within 4 gauss.

use embedded_hal_async::i2c::I2c;

use crate::register::{Chip, Fault, RISING, axes, scale};

const NUMBER: u8 = 0x3d;
const CTRL_REG1: u8 = 0x20;
const CTRL_REG2: u8 = 0x21;
const CTRL_REG3: u8 = 0x22;
const CTRL_REG4: u8 = 0x23;
const CTRL_REG5: u8 = 0x24;
const STATUS_REG: u8 = 0x27;
const OUT_X_L: u8 = 0x28;
/// X and Y at high performance, 1.25 measurements a second.
const ON: u8 = 0b0100_0100;
/// Z at high performance.
const ON_Z: u8 = 0b0000_1000;
const FOUR_GAUSS: u8 = 0;
const CONTINUOUSLY: u8 = 0;
const BLOCKS: u8 = 0b0100_0000;
/// All three axes are there.
const READY: u8 = 0b1000;
/// Of the raw value per gauss.
const PER_GAUSS: i32 = 6842;

/// The sensor at the board's address.
#[derive(Clone, Copy, Debug)]
pub struct Lis3mdl {
    chip: Chip,
}

impl Lis3mdl {
    /// The sensor, not yet begun.
    pub const fn new() -> Self {
        Self {
            chip: Chip { address: 0x1e },
        }
    }

    /// Switches it on.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn begin<B: I2c>(&mut self, bus: &mut B) -> Result<(), Fault<B::Error>> {
        self.chip.must_be(bus, NUMBER).await?;
        self.chip.write(bus, CTRL_REG1, ON).await?;
        self.chip.write(bus, CTRL_REG2, FOUR_GAUSS).await?;
        self.chip.write(bus, CTRL_REG4, ON_Z).await?;
        self.chip.write(bus, CTRL_REG5, BLOCKS).await?;
        self.chip.write(bus, CTRL_REG3, CONTINUOUSLY).await
    }

    /// Magnetic field in thousandths of a gauss.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read<B: I2c>(&mut self, bus: &mut B) -> Result<[i16; 3], Fault<B::Error>> {
        let [status] = self.chip.read(bus, STATUS_REG).await?;
        if status & READY == 0 {
            return Err(Fault::NotReady);
        }
        let bytes = self.chip.read(bus, OUT_X_L | RISING).await?;
        Ok(axes(bytes).map(|raw| scale(raw, 1000, PER_GAUSS)))
    }
}

impl Default for Lis3mdl {
    fn default() -> Self {
        Self::new()
    }
}
