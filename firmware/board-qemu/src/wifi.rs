//! USART2: its bytes go to the harness, which plays the Wi-Fi module.

use core::convert::Infallible;

use cortex_m::peripheral::NVIC;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::pipe::Pipe;
use embedded_io_async::{ErrorType, Read, Write};
use stm32_metapac::{Interrupt, RCC, USART2, interrupt};

/// Bytes that wait to be read. The module answers at most 1.5 KB at once; what does not fit is lost, as on a line without flow control.
const ROOM: usize = 2048;

static RECEIVED: Pipe<CriticalSectionRawMutex, ROOM> = Pipe::new();

/// The serial line to the Wi-Fi module.
#[derive(Debug)]
pub struct Wifi;

impl Wifi {
    /// Throws away what was received and not read.
    pub fn forget(&mut self) {
        RECEIVED.clear();
    }
}

pub(crate) fn begin() -> Wifi {
    RCC.apb1enr1().modify(|register| register.set_usart2en(true));
    USART2.brr().write(|register| register.set_brr(35));
    USART2.cr1().write(|register| {
        register.set_ue(true);
        register.set_re(true);
        register.set_te(true);
        register.set_rxneie(true);
    });
    // SAFETY: the handler below is ready for it.
    unsafe { NVIC::unmask(Interrupt::USART2) };
    Wifi
}

#[interrupt]
fn USART2() {
    while USART2.isr().read().rxne() {
        let byte = USART2.rdr().read().dr() as u8;
        // Full: the byte is lost, and the answer it belonged to will not parse.
        let _ = RECEIVED.try_write(&[byte]);
    }
    USART2.icr().write(|register| register.set_ore(true));
}

impl ErrorType for Wifi {
    type Error = Infallible;
}

impl Read for Wifi {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        Ok(RECEIVED.read(into).await)
    }
}

impl Write for Wifi {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for byte in bytes {
            while !USART2.isr().read().txe() {
                embassy_time::Timer::after_ticks(1).await;
            }
            USART2.tdr().write(|register| register.set_dr(u16::from(*byte)));
        }
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
