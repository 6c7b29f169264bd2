//! Log lines on USART1, the ST-LINK's serial port: 115200 baud.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use stm32_metapac::gpio::vals::Moder;
use stm32_metapac::{GPIOB, RCC, USART1};

const BAUD: u32 = 115_200;
/// PB6 is USART1's output in alternate function 7.
const PIN: usize = 6;
const FUNCTION: u8 = 7;

static OPEN: AtomicBool = AtomicBool::new(false);

struct Console;

/// Opens the console; `clock_hz` is the peripheral clock of USART1.
pub(crate) fn open(clock_hz: u32) {
    RCC.ahb2enr().modify(|register| register.set_gpioben(true));
    RCC.apb2enr().modify(|register| register.set_usart1en(true));
    // A read gives the clocks the two cycles they need (RM0351, 6.2.19).
    RCC.apb2enr().read();
    GPIOB.afr(0).modify(|register| register.set_afr(PIN, FUNCTION));
    GPIOB.moder().modify(|register| register.set_moder(PIN, Moder::ALTERNATE));
    USART1.cr1().modify(|register| register.set_ue(false));
    USART1.brr().write(|register| register.set_brr((clock_hz / BAUD) as u16));
    USART1.cr1().write(|register| {
        register.set_ue(true);
        register.set_te(true);
    });
    OPEN.store(true, Ordering::Relaxed);
}

/// Prints one line, put together from its parts. The bootloader has no room for formatting.
pub fn say(parts: &[&str]) {
    for part in parts {
        send(part.as_bytes());
    }
    send(b"\r\n");
}

/// Sends what is logged to the console.
pub fn begin() {
    // Only the first call of a run can set it.
    let _ = log::set_logger(&Console);
    log::set_max_level(log::LevelFilter::Info);
}

fn send(bytes: &[u8]) {
    if !OPEN.load(Ordering::Relaxed) {
        return;
    }
    for byte in bytes {
        while !USART1.isr().read().txe() {}
        USART1.tdr().write(|register| register.set_dr(u16::from(*byte)));
    }
}

impl log::Log for Console {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // It cannot fail: see below.
        let _ = write!(Out, "{}: {}\r\n", record.target(), record.args());
    }

    fn flush(&self) {}
}

struct Out;

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        send(text.as_bytes());
        Ok(())
    }
}
