//! Every way to end a run; a panic handler is each image's own.

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};

use crate::{console, semihosting};

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
