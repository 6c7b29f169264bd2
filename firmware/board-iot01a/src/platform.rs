//! What needs no bus.

use core::ptr;

use embassy_stm32::adc::{Adc, SampleTime, Temperature};
use embassy_stm32::peripherals::{ADC1, RNG};
use embassy_stm32::rng::Rng;
use forebay_board::{NoEntropy, Platform, ResetCause};
use stm32_metapac::RCC;
use stm32_metapac::RNG as REGISTERS;

use crate::watchdog;

/// Readings of a new word before the generator counts as dead; it needs 40 cycles of its 48 MHz.
const PATIENCE: u32 = 100_000;
/// Factory readings of the sensor at 30 and 110 °C with 3.0 V, and of the reference (DS10969, tables 8 and 9).
const AT_30: *const u16 = 0x1fff_75a8 as *const u16;
const AT_110: *const u16 = 0x1fff_75ca as *const u16;
const REFERENCE: *const u16 = 0x1fff_75aa as *const u16;

/// Randomness, watchdog, reset cause, die temperature.
pub struct IotPlatform {
    _rng: Rng<'static, RNG>,
    adc: Adc<'static, ADC1>,
    temperature: Temperature,
    last: u32,
    cause: ResetCause,
}

impl IotPlatform {
    pub(crate) fn new(rng: Rng<'static, RNG>, adc: Adc<'static, ADC1>) -> IotPlatform {
        let temperature = adc.enable_temperature();
        IotPlatform {
            _rng: rng,
            adc,
            temperature,
            last: 0,
            cause: cause(),
        }
    }

    /// A word of the hardware's generator. Its own health tests are asked each time, and a word equal to the one before is refused.
    fn word(&mut self) -> Result<u32, NoEntropy> {
        for _ in 0..PATIENCE {
            let status = REGISTERS.sr().read();
            if status.secs() || status.cecs() || status.seis() || status.ceis() {
                return Err(NoEntropy);
            }
            if status.drdy() {
                let word = REGISTERS.dr().read();
                if word == self.last || word == 0 {
                    return Err(NoEntropy);
                }
                self.last = word;
                return Ok(word);
            }
        }
        Err(NoEntropy)
    }
}

impl Platform for IotPlatform {
    fn entropy(&mut self, into: &mut [u8]) -> Result<(), NoEntropy> {
        for chunk in into.chunks_mut(4) {
            chunk.copy_from_slice(&self.word()?.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn feed_watchdog(&mut self) {
        watchdog::feed();
    }

    fn reset_cause(&self) -> ResetCause {
        self.cause
    }

    fn die_temperature(&mut self) -> Option<i32> {
        let mut reference = self.adc.enable_vrefint();
        let sample = i32::from(self.adc.blocking_read(&mut self.temperature, SampleTime::CYCLES640_5));
        let vref = i32::from(self.adc.blocking_read(&mut reference, SampleTime::CYCLES640_5));
        // SAFETY: the factory's readings are readable there.
        let (at_30, at_110, at_3_volts) = unsafe { (ptr::read_volatile(AT_30), ptr::read_volatile(AT_110), ptr::read_volatile(REFERENCE)) };
        let span = i32::from(at_110) - i32::from(at_30);
        if vref == 0 || span <= 0 {
            return None;
        }
        // What the sample would be with the 3.0 V of the factory's readings.
        let sample = sample * i32::from(at_3_volts) / vref;
        Some((sample - i32::from(at_30)) * 8000 / span + 3000)
    }
}

/// The pin's flag is set by every reset, so it counts last; the chip cannot tell fresh power from a brown-out.
fn cause() -> ResetCause {
    let flags = RCC.csr().read();
    RCC.csr().modify(|register| register.set_rmvf(true));
    if flags.iwdgrstf() {
        ResetCause::Watchdog
    } else if flags.sftrstf() {
        ResetCause::Software
    } else if flags.borrstf() {
        ResetCause::PowerOn
    } else if flags.pinrstf() {
        ResetCause::Pin
    } else {
        ResetCause::Unknown
    }
}
