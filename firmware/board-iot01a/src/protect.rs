//! Option bytes: debug lock, write protection of the bootloader, and what else a finished device needs (RM0351, 3.4).
//!
//! `firmware/PROTECTION.md` says what each means, and what only real hardware can prove. Nothing here ever sets read protection level 2,
//! which cannot be undone.

use forebay_flash::{PAGE, map};
use stm32_metapac::flash::regs::{Optr, Wrp1ar};
use stm32_metapac::{FLASH, RCC};

const FLASH_KEYS: [u32; 2] = [0x4567_0123, 0xcdef_89ab];
const OPTION_KEYS: [u32; 2] = [0x0819_2a3b, 0x4c5d_6e7f];
/// Any value but 0xaa (level 0) and 0xcc (level 2).
const LEVEL_1: u8 = 0xbb;
const OPEN: u8 = 0xaa;
const FOREVER: u8 = 0xcc;

/// What the option bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// The debug port cannot read flash; opening it again erases everything.
    pub debug_locked: bool,
    /// The debug port is gone for good.
    pub debug_locked_forever: bool,
    /// The bootloader's pages cannot be erased or written.
    pub boot_protected: bool,
    /// The chip always starts in the first bank: neither the other bank nor the system's own loader.
    pub boots_here_only: bool,
}

impl Protection {
    /// What they say now.
    pub fn now() -> Protection {
        let options = FLASH.optr().read();
        Protection {
            debug_locked: options.rdp() != OPEN,
            debug_locked_forever: options.rdp() == FOREVER,
            boot_protected: boot_range(FLASH.wrp1ar().read()),
            boots_here_only: here_only(options),
        }
    }

    /// Whether this is what a finished device has.
    pub fn is_finished(&self) -> bool {
        self.debug_locked && self.boot_protected && self.boots_here_only
    }
}

fn boot_range(register: Wrp1ar) -> bool {
    register.wrp1a_strt() == 0 && u32::from(register.wrp1a_end()) + 1 >= map::BOOT.end / PAGE
}

fn here_only(options: Optr) -> bool {
    // The pin BOOT0 is ignored, its stand-in says main flash, and the banks keep their places.
    !options.n_swboot0() && options.n_boot0() && !options.bfb()
}

/// Sets the option bytes of a finished device, once: read protection level 1, the bootloader write protected, start in the first bank
/// only. The chip resets itself to load them. If they are still not as they should be after that, the device goes on and reports it
/// rather than reset for ever.
pub fn finish() {
    if Protection::now().is_finished() || RCC.csr().read().oblrstf() {
        return;
    }
    while FLASH.sr().read().bsy() {}
    FLASH_KEYS.into_iter().for_each(|key| FLASH.keyr().write_value(key));
    OPTION_KEYS.into_iter().for_each(|key| FLASH.optkeyr().write_value(key));
    FLASH.wrp1ar().modify(|register| {
        register.set_wrp1a_strt(0);
        register.set_wrp1a_end((map::BOOT.end / PAGE - 1) as u8);
    });
    FLASH.optr().modify(|register| {
        if register.rdp() == OPEN {
            register.set_rdp(LEVEL_1);
        }
        register.set_n_swboot0(false);
        register.set_n_boot0(true);
        register.set_bfb(false);
    });
    FLASH.cr().modify(|register| register.set_optstrt(true));
    while FLASH.sr().read().bsy() {}
    FLASH.cr().modify(|register| register.set_obl_launch(true));
    // The chip resets itself now.
    loop {
        cortex_m::asm::nop();
    }
}
