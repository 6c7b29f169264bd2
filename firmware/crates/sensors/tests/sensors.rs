//! The drivers against register models, with the examples of ST's datasheets and application notes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use embedded_hal_async::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use forebay_device_core::{Probe, Reading};
use forebay_sensors::{Fault, Hts221, Lis3mdl, Lps22hb, Lsm6dsl, Sensors};

const HTS221: u8 = 0x5f;
const LPS22HB: u8 = 0x5d;
const LSM6DSL: u8 = 0x6a;
const LIS3MDL: u8 = 0x1e;

/// Registers of a chip. Numbers rise by themselves, or only where the first bit says so.
struct Chip {
    registers: [u8; 128],
    rises_when_asked: bool,
    /// It measures only when these registers hold these bits.
    needs: Vec<(usize, u8)>,
    status: (usize, u8),
}

#[derive(Clone, Default)]
struct Bus(Rc<RefCell<BTreeMap<u8, Chip>>>);

impl ErrorType for Bus {
    type Error = ErrorKind;
}

impl I2c for Bus {
    async fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        let mut chips = self.0.borrow_mut();
        let chip = chips
            .get_mut(&address)
            .ok_or(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address))?;
        let mut at = None;
        for operation in operations {
            match operation {
                Operation::Write([register, values @ ..]) => {
                    at = Some(*register);
                    if let [value] = values {
                        chip.registers[usize::from(*register)] = *value;
                    }
                }
                Operation::Write([]) => panic!("nothing to write"),
                Operation::Read(into) => {
                    let register = at.expect("a register was chosen");
                    let rises = !chip.rises_when_asked || register & 0x80 != 0;
                    let (status, ready) = chip.status;
                    let is_on = chip.needs.iter().all(|(register, bits)| chip.registers[*register] & bits == *bits);
                    chip.registers[status] = if is_on { ready } else { 0 };
                    for (index, byte) in into.iter_mut().enumerate() {
                        let register = usize::from(register & 0x7f) + if rises { index } else { 0 };
                        *byte = chip.registers[register];
                    }
                }
            }
        }
        Ok(())
    }
}

impl Bus {
    fn set(&self, address: u8, register: usize, bytes: &[u8]) {
        let mut chips = self.0.borrow_mut();
        chips.get_mut(&address).unwrap().registers[register..register + bytes.len()].copy_from_slice(bytes);
    }

    fn add(&self, address: u8, number: u8, rises_when_asked: bool, needs: &[(usize, u8)], status: (usize, u8)) {
        let mut registers = [0; 128];
        registers[0x0f] = number;
        let chip = Chip {
            registers,
            rises_when_asked,
            needs: needs.to_vec(),
            status,
        };
        self.0.borrow_mut().insert(address, chip);
    }

    fn add_hts221(&self) {
        self.add(HTS221, 0xbc, true, &[(0x20, 0x84)], (0x27, 3));
        // The datasheet's tables of linear interpolation: 20 % at 4000 and 40 % at 6000; 10 degrees at 300 and 20 at 500.
        self.set(HTS221, 0x30, &[40, 80, 80, 160]);
        self.set(HTS221, 0x36, &4000_i16.to_le_bytes());
        self.set(HTS221, 0x3a, &6000_i16.to_le_bytes());
        self.set(HTS221, 0x3c, &300_i16.to_le_bytes());
        self.set(HTS221, 0x3e, &500_i16.to_le_bytes());
        self.set(HTS221, 0x28, &5000_i16.to_le_bytes());
        self.set(HTS221, 0x2a, &400_i16.to_le_bytes());
    }

    fn add_lps22hb(&self) {
        self.add(LPS22HB, 0xb1, false, &[(0x10, 0x12)], (0x27, 3));
        // The datasheet's example: 3FF58Dh is 1023.3 hPa.
        self.set(LPS22HB, 0x28, &[0x8d, 0xf5, 0x3f]);
    }

    fn add_lsm6dsl(&self) {
        self.add(LSM6DSL, 0x6a, false, &[(0x10, 0x10), (0x11, 0x10), (0x12, 0x44)], (0x1e, 3));
        // The application note's tables: 100, 200 and -100 degrees per second; 350 mg, 1 g and -1 g.
        self.set(LSM6DSL, 0x22, &[0xa4, 0x2c, 0x49, 0x59, 0x5c, 0xd3]);
        self.set(LSM6DSL, 0x28, &[0x69, 0x16, 0x09, 0x40, 0xf7, 0xbf]);
    }

    fn add_lis3mdl(&self) {
        self.add(LIS3MDL, 0x3d, true, &[(0x20, 0x40), (0x24, 0x40)], (0x27, 8));
        self.set(LIS3MDL, 0x22, &[3]); // powered down after a reset
        self.set(LIS3MDL, 0x28, &[6842_i16, -6842, 3421].map(i16::to_le_bytes).concat());
    }
}

#[tokio::test]
async fn humidity_and_temperature_are_those_of_the_datasheets_tables() {
    let mut bus = Bus::default();
    bus.add_hts221();
    let mut sensor = Hts221::new();
    assert_eq!(sensor.read(&mut bus).await, Err(Fault::NotReady), "not begun");
    sensor.begin(&mut bus).await.unwrap();
    assert_eq!(sensor.read(&mut bus).await, Ok((3000, 1500)));
    for (raw, expected) in [(4000, 2000), (6000, 4000), (0, 0), (32767, 10_000), (4001, 2001), (3999, 1999)] {
        bus.set(HTS221, 0x28, &i16::to_le_bytes(raw));
        assert_eq!(sensor.read(&mut bus).await.unwrap().0, expected, "{raw}");
    }
}

#[tokio::test]
async fn a_real_chips_calibration_may_be_negative_and_falling() {
    // Reported by users: points at -2 and -11728, and upper bits of the temperatures.
    let mut bus = Bus::default();
    bus.add_hts221();
    bus.set(HTS221, 0x30, &[66, 144, 0x90, 0x18, 0, 0b0101]); // 33 %, 72 %; 400/8 = 50.0, 280/8 = 35.0 degrees
    bus.set(HTS221, 0x36, &(-2_i16).to_le_bytes());
    bus.set(HTS221, 0x3a, &(-11_728_i16).to_le_bytes());
    bus.set(HTS221, 0x3c, &100_i16.to_le_bytes());
    bus.set(HTS221, 0x3e, &(-50_i16).to_le_bytes());
    bus.set(HTS221, 0x28, &(-784_i16).to_le_bytes());
    bus.set(HTS221, 0x2a, &25_i16.to_le_bytes());
    let mut sensor = Hts221::new();
    sensor.begin(&mut bus).await.unwrap();
    assert_eq!(sensor.read(&mut bus).await, Ok((3560, 4250)));
}

#[tokio::test]
async fn a_calibration_without_a_line_is_refused() {
    let mut bus = Bus::default();
    bus.add_hts221();
    bus.set(HTS221, 0x3a, &4000_i16.to_le_bytes());
    assert_eq!(Hts221::new().begin(&mut bus).await, Err(Fault::Calibration));
}

#[tokio::test]
async fn pressure_is_that_of_the_datasheets_example() {
    let mut bus = Bus::default();
    bus.add_lps22hb();
    let mut sensor = Lps22hb::new();
    assert_eq!(sensor.read(&mut bus).await, Err(Fault::NotReady), "not begun");
    sensor.begin(&mut bus).await.unwrap();
    assert_eq!(sensor.read(&mut bus).await, Ok(102_335), "4191629 / 4096 = 1023.35 hPa");
    bus.set(LPS22HB, 0x28, &[0xff, 0xff, 0xff]);
    assert_eq!(sensor.read(&mut bus).await, Ok(0));
}

#[tokio::test]
async fn acceleration_and_rotation_are_those_of_the_application_notes_tables() {
    let mut bus = Bus::default();
    bus.add_lsm6dsl();
    let mut sensor = Lsm6dsl::new();
    sensor.begin(&mut bus).await.unwrap();
    assert_eq!(sensor.read(&mut bus).await, Ok(([350, 1000, -1000], [1000, 2000, -1000])));
}

#[tokio::test]
async fn a_gauss_is_6842_steps() {
    let mut bus = Bus::default();
    bus.add_lis3mdl();
    let mut sensor = Lis3mdl::new();
    sensor.begin(&mut bus).await.unwrap();
    assert_eq!(sensor.read(&mut bus).await, Ok([1000, -1000, 500]));
    assert_eq!(bus.0.borrow()[&LIS3MDL].registers[0x22], 0, "it measures continuously");
}

#[tokio::test]
async fn another_chip_at_the_address_is_a_stranger() {
    let mut bus = Bus::default();
    bus.add(LPS22HB, 0xb3, false, &[], (0x27, 3));
    assert_eq!(Lps22hb::new().begin(&mut bus).await, Err(Fault::Stranger(0xb3)));
    assert!(matches!(Lis3mdl::new().begin(&mut bus).await, Err(Fault::Bus(_))));
}

#[tokio::test]
async fn a_sensor_that_falls_silent_is_absent_and_comes_back() {
    let bus = Bus::default();
    bus.add_hts221();
    bus.add_lps22hb();
    bus.add_lsm6dsl();
    bus.add_lis3mdl();
    let mut sensors = Sensors::new(bus.clone(), || Some(3125));
    let all = Reading {
        temperature: Some(1500),
        humidity: Some(3000),
        pressure: Some(102_335),
        acceleration: Some([350, 1000, -1000]),
        rotation: Some([1000, 2000, -1000]),
        magnetic: Some([1000, -1000, 500]),
        die: Some(3125),
    };
    assert_eq!(sensors.read().await, all);
    let gone = bus.0.borrow_mut().remove(&LPS22HB);
    assert_eq!(sensors.read().await, Reading { pressure: None, ..all });
    drop(gone);
    bus.add_lps22hb();
    assert_eq!(sensors.read().await, all, "begun anew: it had lost its settings");
}

#[tokio::test]
async fn a_board_without_sensors_gives_empty_readings() {
    let mut sensors = Sensors::new(Bus::default(), || None);
    assert_eq!(sensors.read().await, Reading::default());
}
