//! Every way to end a run; a panic handler is each image's own.

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};

use crate::{console, start_watchdog};

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
