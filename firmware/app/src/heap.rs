//! The heap: TLS needs one.

use embedded_alloc::LlffHeap;

/// Bytes. A connection takes 16 KiB for incoming records and about 10 KiB for rustls.
const SIZE: usize = 56 * 1024;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

static mut ARENA: [u8; SIZE] = [0; SIZE];

/// Opens the heap. Called once, before anything is allocated.
pub(crate) fn begin() {
    // SAFETY: called once, and nothing else names the arena.
    unsafe { HEAP.init((&raw mut ARENA) as usize, SIZE) };
}

/// Bytes in use, of how many.
pub(crate) fn used() -> (usize, usize) {
    (HEAP.used(), SIZE)
}
