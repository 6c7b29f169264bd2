//! Every way to end a run; a panic handler is each image's own.

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};

use crate::{clock, console, start_watchdog};

/// Jumps into the image whose vector table is at `vectors`, with the clock as a reset leaves it.
///
/// # Safety
/// The image there was verified; nothing of the caller is used again.
pub unsafe fn jump(vectors: u32) -> ! {
    clock::as_after_reset();
    // SAFETY: exclusive, as nothing else runs; the caller vouches for the table.
    unsafe {
        (*SCB::PTR).vtor.write(vectors);
        cortex_m::asm::bootload(vectors as *const u32)
    }
}

/// Ends this run.
pub fn reset() -> ! {
    SCB::sys_reset()
}

/// Nothing can run: wait for the watchdog and look again, in case it was a passing fault.
pub fn end() -> ! {
    start_watchdog();
    loop {
        cortex_m::asm::wfi();
    }
}

#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    console::say(&["fault"]);
    reset()
}
