//! Every way to end a run; a panic handler is each image's own.

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};

use crate::{console, semihosting};

/// Jumps into the image whose vector table is at `vectors`.
///
/// # Safety
/// The image there was verified; nothing of the caller is used again.
pub unsafe fn jump(vectors: u32) -> ! {
    // SAFETY: exclusive, as nothing else runs; the caller vouches for the table.
    unsafe {
        (*SCB::PTR).vtor.write(vectors);
        cortex_m::asm::bootload(vectors as *const u32)
    }
}

/// Ends this run; the emulator leaves, and its harness starts it again.
pub fn reset() -> ! {
    SCB::sys_reset()
}

/// Ends the emulator for good: nothing can run.
pub fn end() -> ! {
    semihosting::exit(false);
    reset()
}

#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    console::say(&["fault"]);
    reset()
}
