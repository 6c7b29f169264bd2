//! What needs no bus.

use core::ptr;

use embassy_time::Instant;
use fixed_seed::FixedSeed;
use forebay_board::{NoEntropy, Platform, ResetCause, StackUse};

use crate::{fault, semihosting};

const PAINT: u32 = 0x5354_4b21;

unsafe extern "C" {
    static mut _stack_end: u32;
    static mut _stack_start: u32;
}

/// Randomness (from a fixed seed), clock, reset.
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
    fn now_ms(&self) -> u64 {
        Instant::now().as_millis()
    }

    fn entropy(&mut self, into: &mut [u8]) -> Result<(), NoEntropy> {
        self.random.fill(into);
        Ok(())
    }

    fn feed_watchdog(&mut self) {}

    fn reset(&mut self) -> ! {
        fault::reset()
    }

    /// The emulator ends at a reset, so every start is one with fresh power.
    fn reset_cause(&self) -> ResetCause {
        ResetCause::PowerOn
    }

    fn chip_id(&self) -> [u8; 12] {
        *b"qemu-000-001"
    }

    fn die_temperature(&mut self) -> Option<i32> {
        None
    }

    fn stack(&self) -> StackUse {
        let (end, start) = bounds();
        let mut at = end;
        // SAFETY: all of the stack's memory is readable.
        while at < start && unsafe { ptr::read_volatile(at as *const u32) } == PAINT {
            at += 4;
        }
        StackUse {
            size: start - end,
            most: start - at,
        }
    }
}

fn bounds() -> (u32, u32) {
    ((&raw const _stack_end) as u32, (&raw const _stack_start) as u32)
}

/// Fills the unused stack with a pattern, so that its greatest use can be seen later.
pub(crate) fn paint_stack() {
    let (end, _) = bounds();
    // Some room for this function's own frame.
    let now = cortex_m::register::msp::read() - 64;
    let mut at = end;
    while at < now {
        // SAFETY: below the stack pointer nothing is alive, and interrupts, which would push there, are not yet on.
        unsafe { ptr::write_volatile(at as *mut u32, PAINT) };
        at += 4;
    }
}
