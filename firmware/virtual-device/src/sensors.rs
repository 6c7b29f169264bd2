//! Sensors that nobody built: a day's curve with a little noise.

use std::f64::consts::TAU;

use forebay_device_core::{Clock as _, Probe, Reading};

use crate::HostClock;

/// Readings that look like a room's. Two devices with different seeds differ.
#[derive(Debug)]
pub struct SimulatedSensors {
    clock: HostClock,
    noise: u32,
}

impl SimulatedSensors {
    /// Sensors whose noise begins at `seed`.
    pub fn new(clock: HostClock, seed: u32) -> Self {
        Self { clock, noise: seed | 1 }
    }

    /// Between -1 and 1.
    fn noise(&mut self) -> f64 {
        // xorshift32
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        f64::from(self.noise) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}

impl Probe for SimulatedSensors {
    async fn read(&mut self) -> Reading {
        let minutes = self.clock.now().as_millis() as f64 / 60_000.0;
        let day = (minutes / 1440.0 * TAU).sin();
        // A board heats its own sensors within the first half hour.
        let heat = 4.0 * (1.0 - (-minutes / 10.0).exp());
        let air = 21.0 + 3.0 * day + 0.05 * self.noise();
        Reading {
            temperature: Some(hundredths(air + heat)),
            humidity: Some(hundredths(45.0 - 8.0 * day + 0.2 * self.noise()).unsigned_abs()),
            pressure: Some((101_325.0 + 300.0 * day + 5.0 * self.noise()) as u32),
            acceleration: Some([self.noise() * 3.0, self.noise() * 3.0, 1000.0 + self.noise() * 3.0].map(|axis| axis as i16)),
            rotation: Some([self.noise() * 2.0, self.noise() * 2.0, self.noise() * 2.0].map(|axis| axis as i16)),
            magnetic: Some([210.0 + self.noise(), -35.0 + self.noise(), 430.0 + self.noise()].map(|axis| axis as i16)),
            die: Some(hundredths(air + 2.0 * heat + 3.0)),
        }
    }
}

fn hundredths(value: f64) -> i16 {
    (value * 100.0) as i16
}
