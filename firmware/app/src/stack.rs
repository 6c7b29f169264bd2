//! How far the stack has grown: its unused part is painted at the start, and looked at later.

use core::ptr;

/// What the unused part holds; `tools/src/emulator.rs` looks for it as well.
const PAINT: u32 = 0x5354_4b21;

unsafe extern "C" {
    static mut _stack_end: u32;
    static mut _stack_start: u32;
}

/// How far the stack has grown since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StackUse {
    /// Bytes reserved for it.
    pub(crate) size: u32,
    /// The most bytes it has used.
    pub(crate) most: u32,
}

fn bounds() -> (u32, u32) {
    ((&raw const _stack_end) as u32, (&raw const _stack_start) as u32)
}

/// Paints the unused part. Called once, before the board takes up its interrupts.
pub(crate) fn paint() {
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

/// Looks how much of the paint is gone.
pub(crate) fn used() -> StackUse {
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
