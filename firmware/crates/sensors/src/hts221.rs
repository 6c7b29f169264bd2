//! HTS221: relative humidity and temperature, by a line through two calibration points of the chip's own.

use embedded_hal_async::i2c::I2c;

use crate::register::{Chip, Fault, RISING};

const NUMBER: u8 = 0xbc;
const CTRL_REG1: u8 = 0x20;
const STATUS_REG: u8 = 0x27;
const HUMIDITY_OUT_L: u8 = 0x28;
const CALIBRATION: u8 = 0x30;
/// Powered, block update, one measurement a second.
const ON: u8 = 0b1000_0101;
/// Humidity and temperature are both there.
const READY: u8 = 0b11;

/// The sensor at its only address.
#[derive(Clone, Copy, Debug)]
pub struct Hts221 {
    chip: Chip,
    calibration: Option<Calibration>,
}

#[derive(Clone, Copy, Debug)]
struct Calibration {
    humidity: Line,
    temperature: Line,
}

/// A line through two points: raw value, and what it is in hundredths.
#[derive(Clone, Copy, Debug)]
struct Line {
    raw: [i32; 2],
    hundredths: [i32; 2],
}

impl Line {
    fn at(self, raw: i16) -> i32 {
        let span = i64::from(self.raw[1] - self.raw[0]);
        let rise = i64::from(self.hundredths[1] - self.hundredths[0]) * i64::from(i32::from(raw) - self.raw[0]);
        // The span is not zero: begin() looked.
        let step = (2 * rise + span.signum() * rise.signum() * span) / (2 * span);
        self.hundredths[0] + i32::try_from(step).unwrap_or(0)
    }
}

impl Hts221 {
    /// The sensor, not yet begun.
    pub const fn new() -> Self {
        Self {
            chip: Chip { address: 0x5f },
            calibration: None,
        }
    }

    /// Switches it on and reads its calibration.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn begin<B: I2c>(&mut self, bus: &mut B) -> Result<(), Fault<B::Error>> {
        self.chip.must_be(bus, NUMBER).await?;
        self.calibration = Some(calibration(self.chip.read(bus, CALIBRATION | RISING).await?).ok_or(Fault::Calibration)?);
        self.chip.write(bus, CTRL_REG1, ON).await
    }

    /// Relative humidity in hundredths of a percent, temperature in hundredths of a degree Celsius.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read<B: I2c>(&mut self, bus: &mut B) -> Result<(u16, i16), Fault<B::Error>> {
        let calibration = self.calibration.ok_or(Fault::NotReady)?;
        let [status] = self.chip.read(bus, STATUS_REG).await?;
        if status & READY != READY {
            return Err(Fault::NotReady);
        }
        let [low, high, t_low, t_high] = self.chip.read(bus, HUMIDITY_OUT_L | RISING).await?;
        // Near the ends the line leaves what is possible.
        let humidity = calibration.humidity.at(i16::from_le_bytes([low, high])).clamp(0, 10_000);
        let temperature = calibration.temperature.at(i16::from_le_bytes([t_low, t_high]));
        Ok((humidity as u16, temperature.clamp(i16::MIN.into(), i16::MAX.into()) as i16))
    }
}

impl Default for Hts221 {
    fn default() -> Self {
        Self::new()
    }
}

fn calibration(bytes: [u8; 16]) -> Option<Calibration> {
    let raw = |at: usize| i32::from(i16::from_le_bytes([bytes[at], bytes[at + 1]]));
    // Humidity comes in half percents, temperature in eighths of a degree with two more bits elsewhere.
    let humidity = |at: usize| i32::from(bytes[at]) * 100 / 2;
    let temperature = |at: usize, top: u8| i32::from(u16::from_le_bytes([bytes[at], top & 3])) * 100 / 8;
    let calibration = Calibration {
        humidity: Line {
            raw: [raw(6), raw(10)],
            hundredths: [humidity(0), humidity(1)],
        },
        temperature: Line {
            raw: [raw(12), raw(14)],
            hundredths: [temperature(2, bytes[5]), temperature(3, bytes[5] >> 2)],
        },
    };
    let is_line = |line: Line| line.raw[0] != line.raw[1];
    (is_line(calibration.humidity) && is_line(calibration.temperature)).then_some(calibration)
}
