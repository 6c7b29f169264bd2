//! The heap: TLS needs one.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

use embedded_alloc::LlffHeap;

#[global_allocator]
static HEAP: Heap = Heap {
    inner: LlffHeap::empty(),
    most: AtomicUsize::new(0),
};

unsafe extern "C" {
    // Where the linker left room: 44 KiB. A connection takes 16 KiB for incoming records and about as much for rustls.
    static mut _heap_start: u8;
    static mut _heap_end: u8;
}

fn bounds() -> (usize, usize) {
    ((&raw const _heap_start) as usize, (&raw const _heap_end) as usize)
}

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
    let (start, end) = bounds();
    // SAFETY: called once, and the linker puts nothing else there.
    unsafe { HEAP.inner.init(start, end - start) };
}

/// The most bytes that were in use, of how many.
pub(crate) fn most() -> (usize, usize) {
    let (start, end) = bounds();
    (HEAP.most.load(Ordering::Relaxed), end - start)
}
