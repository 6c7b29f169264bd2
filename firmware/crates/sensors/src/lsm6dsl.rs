//! LSM6DSL: acceleration within 2 g, rotation within 250 degrees per second.

use embedded_hal_async::i2c::I2c;

use crate::register::{Chip, Fault, axes, scale};

const NUMBER: u8 = 0x6a;
const CTRL1_XL: u8 = 0x10;
const CTRL2_G: u8 = 0x11;
const CTRL3_C: u8 = 0x12;
const STATUS_REG: u8 = 0x1e;
const OUTX_L_G: u8 = 0x22;
/// 12.5 measurements a second, the narrowest range.
const ON: u8 = 0b0001_0000;
/// Block update; register numbers rise.
const BLOCKS: u8 = 0b0100_0100;
/// Acceleration and rotation are both there.
const READY: u8 = 0b11;

/// The sensor at the board's address.
#[derive(Clone, Copy, Debug)]
pub struct Lsm6dsl {
    chip: Chip,
}

impl Lsm6dsl {
    /// The sensor, not yet begun.
    pub const fn new() -> Self {
        Self {
            chip: Chip { address: 0x6a },
        }
    }

    /// Switches it on.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn begin<B: I2c>(&mut self, bus: &mut B) -> Result<(), Fault<B::Error>> {
        self.chip.must_be(bus, NUMBER).await?;
        self.chip.write(bus, CTRL3_C, BLOCKS).await?;
        self.chip.write(bus, CTRL1_XL, ON).await?;
        self.chip.write(bus, CTRL2_G, ON).await
    }

    /// Acceleration in thousandths of g, rotation in tenths of a degree per second.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read<B: I2c>(&mut self, bus: &mut B) -> Result<([i16; 3], [i16; 3]), Fault<B::Error>> {
        let [status] = self.chip.read(bus, STATUS_REG).await?;
        if status & READY != READY {
            return Err(Fault::NotReady);
        }
        let [g0, g1, g2, g3, g4, g5, a0, a1, a2, a3, a4, a5] = self.chip.read(bus, OUTX_L_G).await?;
        // 0.061 mg and 8.75 thousandths of a degree per second for each step.
        let acceleration = axes([a0, a1, a2, a3, a4, a5]).map(|raw| scale(raw, 61, 1000));
        let rotation = axes([g0, g1, g2, g3, g4, g5]).map(|raw| scale(raw, 875, 10_000));
        Ok((acceleration, rotation))
    }
}

impl Default for Lsm6dsl {
    fn default() -> Self {
        Self::new()
    }
}
