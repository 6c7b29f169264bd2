//! The independent watchdog: started by the bootloader before every jump and never stopped, so that an image that hangs is reset and its
//! try counted.

use stm32_metapac::IWDG;
use stm32_metapac::iwdg::vals::{Key, Pr};

/// The longest there is: 4096 ticks of the 32 kHz oscillator divided by 256, about 32 s (28 to 35 s with its tolerance).
const RELOAD: u16 = 0xfff;

/// Starts the watchdog with about 32 s.
pub fn start_watchdog() {
    IWDG.kr().write(|register| register.set_key(Key::START));
    IWDG.kr().write(|register| register.set_key(Key::ENABLE));
    IWDG.pr().write(|register| register.set_pr(Pr::DIVIDE_BY256));
    IWDG.rlr().write(|register| register.set_rl(RELOAD));
    while {
        let status = IWDG.sr().read();
        status.pvu() || status.rvu()
    } {}
    feed();
}

pub(crate) fn feed() {
    IWDG.kr().write(|register| register.set_key(Key::RESET));
}
