//! Registers over I2C.

use embedded_hal_async::i2c::I2c;

/// In the register's number: the number rises with each byte. HTS221 and LIS3MDL want it said.
pub(crate) const RISING: u8 = 0x80;
/// Where all four say who they are.
const WHO_AM_I: u8 = 0x0f;

/// Why a sensor gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault<E> {
    /// The bus failed, or nobody answered.
    Bus(E),
    /// Another chip answered, with this number.
    Stranger(u8),
    /// Its calibration makes no sense: two points are one.
    Calibration,
    /// It has not measured since it was asked last.
    NotReady,
}

impl<E> From<E> for Fault<E> {
    fn from(error: E) -> Self {
        Self::Bus(error)
    }
}

/// A chip on the bus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chip {
    pub(crate) address: u8,
}

impl Chip {
    /// Makes sure that the right chip is there.
    pub(crate) async fn must_be<B: I2c>(self, bus: &mut B, number: u8) -> Result<(), Fault<B::Error>> {
        match self.read::<B, 1>(bus, WHO_AM_I).await? {
            [found] if found == number => Ok(()),
            [found] => Err(Fault::Stranger(found)),
        }
    }

    pub(crate) async fn read<B: I2c, const N: usize>(self, bus: &mut B, register: u8) -> Result<[u8; N], Fault<B::Error>> {
        let mut bytes = [0; N];
        bus.write_read(self.address, &[register], &mut bytes).await?;
        Ok(bytes)
    }

    pub(crate) async fn write<B: I2c>(self, bus: &mut B, register: u8, value: u8) -> Result<(), Fault<B::Error>> {
        Ok(bus.write(self.address, &[register, value]).await?)
    }
}

/// Three axes of 16 bits, little-endian.
pub(crate) fn axes(bytes: [u8; 6]) -> [i16; 3] {
    [0, 2, 4].map(|at| i16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// `value` times `numerator` over `denominator`, rounded half away from zero, within an `i16`.
pub(crate) fn scale(value: i16, numerator: i32, denominator: i32) -> i16 {
    let product = i32::from(value) * numerator;
    let half = if product < 0 { -denominator / 2 } else { denominator / 2 };
    let scaled = (product + half) / denominator;
    scaled.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}
