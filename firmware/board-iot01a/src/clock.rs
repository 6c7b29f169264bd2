//! The bootloader's clock (RM0351, 6.2.3): MSI at 48 MHz, and back to the 4 MHz of a reset before the jump.

use stm32_metapac::rcc::vals::{Msirange, Msirgsel};
use stm32_metapac::{FLASH, RCC};

pub(crate) const FAST_HZ: u32 = 48_000_000;

/// Two wait states suffice for 48 MHz in voltage range 1 (RM0351, table 11).
const WAIT_STATES: u8 = 2;

pub(crate) fn fast() {
    FLASH.acr().modify(|register| {
        register.set_latency(WAIT_STATES);
        register.set_icen(true);
        register.set_dcen(true);
        register.set_prften(true);
    });
    while FLASH.acr().read().latency() != WAIT_STATES {}
    range(Msirange::RANGE48M);
}

pub(crate) fn as_after_reset() {
    range(Msirange::RANGE4M);
    FLASH.acr().modify(|register| register.set_latency(0));
}

fn range(range: Msirange) {
    while !RCC.cr().read().msirdy() {}
    RCC.cr().modify(|register| {
        register.set_msirange(range);
        register.set_msirgsel(Msirgsel::CR);
    });
    while !RCC.cr().read().msirdy() {}
}
