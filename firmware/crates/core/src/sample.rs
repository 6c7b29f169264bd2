//! One measurement, as it is kept.

use crate::clock::Uptime;

/// Which sample: no two of a device have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SampleId {
    /// Counts the device's boots, from 1.
    pub boot: u32,
    /// Counts the samples of one boot, from 1.
    pub sequence: u32,
}

impl SampleId {
    /// From the first bytes of an encoded sample.
    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Self {
        let mut reader = Reader(&bytes);
        Self {
            boot: u32::from_le_bytes(reader.take()),
            sequence: u32::from_le_bytes(reader.take()),
        }
    }
}

/// What the sensors said. A sensor that did not answer is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Air temperature in hundredths of a degree Celsius, uncorrected.
    pub temperature: Option<i16>,
    /// Relative humidity in hundredths of a percent.
    pub humidity: Option<u16>,
    /// Air pressure in pascals.
    pub pressure: Option<u32>,
    /// Acceleration in thousandths of g, by axis.
    pub acceleration: Option<[i16; 3]>,
    /// Rotation in tenths of a degree per second, by axis.
    pub rotation: Option<[i16; 3]>,
    /// Magnetic field in thousandths of a gauss, by axis.
    pub magnetic: Option<[i16; 3]>,
    /// Temperature of the chip itself in hundredths of a degree Celsius: with the uptime it shows how far the board heats
    /// its own sensors.
    pub die: Option<i16>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which one.
    pub id: SampleId,
    /// When, since the boot.
    pub uptime: Uptime,
    /// When, in milliseconds since 1970, if that is known.
    pub wall_ms: Option<u64>,
    /// What.
    pub reading: Reading,
}

/// Bytes of a sample in flash.
pub(crate) const ENCODED: usize = 64;
const CHECKED: usize = ENCODED - 4;

impl Sample {
    /// Fixed width, little-endian, the CRC-32 of all before it at the end.
    pub(crate) fn encode(&self) -> [u8; ENCODED] {
        let reading = &self.reading;
        let mut bytes = [0; ENCODED];
        let mut writer = Writer { bytes: &mut bytes, at: 0 };
        writer.put(self.id.boot.to_le_bytes());
        writer.put(self.id.sequence.to_le_bytes());
        writer.put(self.uptime.as_millis().to_le_bytes());
        writer.put(self.wall_ms.unwrap_or(0).to_le_bytes());
        let present = [
            reading.temperature.is_some(),
            reading.humidity.is_some(),
            reading.pressure.is_some(),
            reading.acceleration.is_some(),
            reading.rotation.is_some(),
            reading.magnetic.is_some(),
            reading.die.is_some(),
        ];
        let flags = present.iter().rev().fold(0_u16, |flags, is| flags << 1 | u16::from(*is));
        writer.put(flags.to_le_bytes());
        writer.put(reading.temperature.unwrap_or(0).to_le_bytes());
        writer.put(reading.humidity.unwrap_or(0).to_le_bytes());
        writer.put(reading.die.unwrap_or(0).to_le_bytes());
        writer.put(reading.pressure.unwrap_or(0).to_le_bytes());
        for axes in [reading.acceleration, reading.rotation, reading.magnetic] {
            for axis in axes.unwrap_or_default() {
                writer.put(axis.to_le_bytes());
            }
        }
        let crc = crc32(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None if the bytes are no sample: torn, decayed or erased.
    pub(crate) fn decode(bytes: &[u8; ENCODED]) -> Option<Self> {
        let (checked, crc) = bytes.split_at(CHECKED);
        if crc32(checked).to_le_bytes() != crc {
            return None;
        }
        let mut reader = Reader(checked);
        let id = SampleId {
            boot: u32::from_le_bytes(reader.take()),
            sequence: u32::from_le_bytes(reader.take()),
        };
        let uptime = Uptime::from_millis(u64::from_le_bytes(reader.take()));
        let wall_ms = Some(u64::from_le_bytes(reader.take())).filter(|wall| *wall != 0);
        let flags = u16::from_le_bytes(reader.take());
        let is_there = |bit: u16| flags & (1 << bit) != 0;
        let temperature = i16::from_le_bytes(reader.take());
        let humidity = u16::from_le_bytes(reader.take());
        let die = i16::from_le_bytes(reader.take());
        let pressure = u32::from_le_bytes(reader.take());
        let mut axes = || [0; 3].map(|_: i16| i16::from_le_bytes(reader.take()));
        let (acceleration, rotation, magnetic) = (axes(), axes(), axes());
        let reading = Reading {
            temperature: is_there(0).then_some(temperature),
            humidity: is_there(1).then_some(humidity),
            pressure: is_there(2).then_some(pressure),
            acceleration: is_there(3).then_some(acceleration),
            rotation: is_there(4).then_some(rotation),
            magnetic: is_there(5).then_some(magnetic),
            die: is_there(6).then_some(die),
        };
        Some(Self {
            id,
            uptime,
            wall_ms,
            reading,
        })
    }
}

struct Writer<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&field);
        self.at += N;
    }
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    /// The next field; the layout above fits, so there always is one.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        if let Some((first, rest)) = self.0.split_at_checked(N) {
            field.copy_from_slice(first);
            self.0 = rest;
        }
        field
    }
}

/// CRC-32 (IEEE 802.3), by half bytes: a table of 64 bytes.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = table();
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
        crc >> 4 ^ TABLE[(crc & 15) as usize]
    })
}

const fn table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut index = 0;
    while index < 16 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(boot: u32, sequence: u32) -> Sample {
        Sample {
            id: SampleId { boot, sequence },
            uptime: Uptime::from_millis(u64::from(sequence) * 1000),
            wall_ms: (!sequence.is_multiple_of(3)).then_some(1_795_723_200_000 + u64::from(sequence)),
            reading: Reading {
                temperature: Some(-1234),
                humidity: (!sequence.is_multiple_of(2)).then_some(4567),
                pressure: Some(101_325),
                acceleration: Some([-1, 2, 1000]),
                rotation: None,
                magnetic: Some([i16::MIN, 0, i16::MAX]),
                die: Some(3125),
            },
        }
    }

    #[test]
    fn the_crc_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_sample_comes_back_as_it_was_and_no_flipped_bit_goes_unnoticed() {
        for sequence in 0..10 {
            let sample = sample(7, sequence);
            let bytes = sample.encode();
            assert_eq!(Sample::decode(&bytes), Some(sample));
            for bit in 0..ENCODED * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Sample::decode(&flipped), None, "bit {bit}");
            }
        }
        assert_eq!(Sample::decode(&[0xff; ENCODED]), None);
        assert_eq!(Sample::decode(&[0; ENCODED]), None);
    }
}
