//! What needs no bus.

use fixed_seed::FixedSeed;
use forebay_board::{NoEntropy, Platform, ResetCause};

use crate::{semihosting, time};

/// Randomness (from a fixed seed), the watchdog.
#[derive(Debug)]
pub struct QemuPlatform {
    random: FixedSeed,
}

impl QemuPlatform {
    pub(crate) fn new() -> QemuPlatform {
        QemuPlatform {
            random: FixedSeed::new(u64::from(semihosting::clock())),
        }
    }
}

impl Platform for QemuPlatform {
    fn entropy(&mut self, into: &mut [u8]) -> Result<(), NoEntropy> {
        self.random.fill(into);
        Ok(())
    }

    fn feed_watchdog(&mut self) {
        time::feed_watchdog();
    }

    /// The emulator ends at a reset, so every start is one with fresh power.
    fn reset_cause(&self) -> ResetCause {
        ResetCause::PowerOn
    }

    fn die_temperature(&mut self) -> Option<i32> {
        None
    }
}
