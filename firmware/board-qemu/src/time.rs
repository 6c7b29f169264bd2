//! Time from SysTick, and a watchdog on it: the emulator's other timers are stubs.
//!
//! The harness may have the board's clock run faster than its own: an hour of the device then passes in minutes, with all its intervals,
//! waits and deadlines, and the processor seems slower by as much.

use core::cell::{Cell, RefCell};
use core::task::Waker;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{Peripherals, SYST};
use cortex_m_rt::exception;
use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::{Driver, TICK_HZ};
use embassy_time_queue_utils::Queue;

use crate::semihosting::File;
use crate::{console, fault};

/// The clock after reset: MSI at 4 MHz.
const CLOCK_HZ: u32 = 4_000_000;

/// The watchdog of the real board, in ticks.
const UNFED: u64 = 32 * TICK_HZ;

struct SysTick {
    now: Mutex<Cell<u64>>,
    /// Ticks that pass with each of SysTick's.
    speed: Mutex<Cell<u64>>,
    fed: Mutex<Cell<u64>>,
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static DRIVER: SysTick = SysTick {
    now: Mutex::new(Cell::new(0)),
    speed: Mutex::new(Cell::new(1)),
    fed: Mutex::new(Cell::new(0)),
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
        now.set(now.get() + self.speed.borrow(section).get());
        if now.get() - self.fed.borrow(section).get() > UNFED {
            console::say(&["the watchdog was not fed"]);
            fault::reset()
        }
        // At 10 kHz this is cheap enough to do every time: the queue has a handful of entries.
        self.queue.borrow_ref_mut(section).next_expiration(now.get());
    }
}

#[exception]
fn SysTick() {
    critical_section::with(|section| DRIVER.tick(section));
}

/// Puts the watchdog off.
pub(crate) fn feed_watchdog() {
    critical_section::with(|section| DRIVER.fed.borrow(section).set(DRIVER.now.borrow(section).get()));
}

/// How many times faster than the host's the clock shall run: a digit in the file `speed`, or 1 without one.
fn speed() -> u64 {
    let mut digit = [b'1'];
    if let Ok(file) = File::read_only(c"speed") {
        // A file that cannot be read is one that is not there.
        file.read(0, &mut digit).ok();
    }
    u64::from(digit[0].saturating_sub(b'0')).max(1)
}

pub(crate) fn begin() {
    let speed = speed();
    critical_section::with(|section| DRIVER.speed.borrow(section).set(speed));
    // SAFETY: called once; nothing else here uses SysTick.
    let mut systick: SYST = unsafe { Peripherals::steal() }.SYST;
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(CLOCK_HZ / TICK_HZ as u32 - 1);
    systick.clear_current();
    systick.enable_counter();
    systick.enable_interrupt();
}
