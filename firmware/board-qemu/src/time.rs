//! Time from SysTick: the emulator's other timers are stubs.

use core::cell::{Cell, RefCell};
use core::task::Waker;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{Peripherals, SYST};
use cortex_m_rt::exception;
use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::{Driver, TICK_HZ};
use embassy_time_queue_utils::Queue;

/// The clock after reset: MSI at 4 MHz.
const CLOCK_HZ: u32 = 4_000_000;

struct SysTick {
    now: Mutex<Cell<u64>>,
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static DRIVER: SysTick = SysTick {
    now: Mutex::new(Cell::new(0)),
    queue: Mutex::new(RefCell::new(Queue::new())),
});

impl Driver for SysTick {
    fn now(&self) -> u64 {
        critical_section::with(|section| self.now.borrow(section).get())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|section| {
            self.queue.borrow_ref_mut(section).schedule_wake(at, waker);
        });
    }
}

impl SysTick {
    fn tick(&self, section: CriticalSection<'_>) {
        let now = self.now.borrow(section);
        now.set(now.get() + 1);
        // At 10 kHz this is cheap enough to do every time: the queue has a handful of entries.
        self.queue.borrow_ref_mut(section).next_expiration(now.get());
    }
}

#[exception]
fn SysTick() {
    critical_section::with(|section| DRIVER.tick(section));
}

pub(crate) fn begin() {
    // SAFETY: called once; nothing else here uses SysTick.
    let mut systick: SYST = unsafe { Peripherals::steal() }.SYST;
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(CLOCK_HZ / TICK_HZ as u32 - 1);
    systick.clear_current();
    systick.enable_counter();
    systick.enable_interrupt();
}
