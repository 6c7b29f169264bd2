//! All sensors of the board as the device core's probe.

use embedded_hal_async::i2c::I2c;
use forebay_device_core::{Probe, Reading};

use crate::{Fault, Hts221, Lis3mdl, Lps22hb, Lsm6dsl};

/// The four sensors on one bus, and the die's temperature.
#[derive(Debug)]
pub struct Sensors<B, D> {
    bus: B,
    /// The die's temperature in hundredths of a degree Celsius, if the board can tell.
    die: D,
    hts221: Slot<Hts221>,
    lps22hb: Slot<Lps22hb>,
    lsm6dsl: Slot<Lsm6dsl>,
    lis3mdl: Slot<Lis3mdl>,
}

/// A sensor, and whether it was begun.
#[derive(Debug)]
struct Slot<S> {
    sensor: S,
    is_on: bool,
}

impl<S> Slot<S> {
    const fn new(sensor: S) -> Self {
        Self { sensor, is_on: false }
    }

    /// Keeps a value. After any fault but impatience the sensor is begun anew: it may have lost its power, and its settings.
    fn take<V, E>(&mut self, result: Result<V, Fault<E>>) -> Option<V> {
        self.is_on = matches!(result, Ok(_) | Err(Fault::NotReady));
        result.ok()
    }
}

impl<B: I2c, D: FnMut() -> Option<i16>> Sensors<B, D> {
    /// The sensors on this bus; nothing is asked of them yet.
    pub const fn new(bus: B, die: D) -> Self {
        Self {
            bus,
            die,
            hts221: Slot::new(Hts221::new()),
            lps22hb: Slot::new(Lps22hb::new()),
            lsm6dsl: Slot::new(Lsm6dsl::new()),
            lis3mdl: Slot::new(Lis3mdl::new()),
        }
    }

    /// Begins those that are not. One that fails is asked all the same, and absent.
    async fn begin(&mut self) {
        if !self.hts221.is_on {
            self.hts221.is_on = self.hts221.sensor.begin(&mut self.bus).await.is_ok();
        }
        if !self.lps22hb.is_on {
            self.lps22hb.is_on = self.lps22hb.sensor.begin(&mut self.bus).await.is_ok();
        }
        if !self.lsm6dsl.is_on {
            self.lsm6dsl.is_on = self.lsm6dsl.sensor.begin(&mut self.bus).await.is_ok();
        }
        if !self.lis3mdl.is_on {
            self.lis3mdl.is_on = self.lis3mdl.sensor.begin(&mut self.bus).await.is_ok();
        }
    }
}

impl<B: I2c, D: FnMut() -> Option<i16>> Probe for Sensors<B, D> {
    async fn read(&mut self) -> Reading {
        self.begin().await;
        let mut reading = Reading {
            die: (self.die)(),
            ..Reading::default()
        };
        if self.hts221.is_on {
            let found = self.hts221.sensor.read(&mut self.bus).await;
            if let Some((humidity, temperature)) = self.hts221.take(found) {
                reading.humidity = Some(humidity);
                reading.temperature = Some(temperature);
            }
        }
        if self.lps22hb.is_on {
            let found = self.lps22hb.sensor.read(&mut self.bus).await;
            reading.pressure = self.lps22hb.take(found);
        }
        if self.lsm6dsl.is_on {
            let found = self.lsm6dsl.sensor.read(&mut self.bus).await;
            if let Some((acceleration, rotation)) = self.lsm6dsl.take(found) {
                reading.acceleration = Some(acceleration);
                reading.rotation = Some(rotation);
            }
        }
        if self.lis3mdl.is_on {
            let found = self.lis3mdl.sensor.read(&mut self.bus).await;
            reading.magnetic = self.lis3mdl.take(found);
        }
        reading
    }
}
