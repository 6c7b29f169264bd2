//! The heap: TLS needs one.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

use embedded_alloc::LlffHeap;

/// Bytes. A connection takes 16 KiB for incoming records and about 10 KiB for rustls.
const SIZE: usize = 56 * 1024;

#[global_allocator]
static HEAP: Heap = Heap {
    inner: LlffHeap::empty(),
    most: AtomicUsize::new(0),
};

static mut ARENA: [u8; SIZE] = [0; SIZE];

/// A heap that remembers the most that was in use.
struct Heap {
    inner: LlffHeap,
    most: AtomicUsize,
}

// SAFETY: the inner heap does the work; this only counts.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the inner heap's.
        let memory = unsafe { self.inner.alloc(layout) };
        self.most.fetch_max(self.inner.used(), Ordering::Relaxed);
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the inner heap's.
        unsafe { self.inner.dealloc(memory, layout) }
    }
}

/// Opens the heap. Called once, before anything is allocated.
pub(crate) fn begin() {
    // SAFETY: called once, and nothing else names the arena.
    unsafe { HEAP.inner.init((&raw mut ARENA) as usize, SIZE) };
}

/// The most bytes that were in use, of how many.
pub(crate) fn most() -> (usize, usize) {
    (HEAP.most.load(Ordering::Relaxed), SIZE)
}
