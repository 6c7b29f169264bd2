//! The flash (RM0351, chapter 3).
//!
//! embassy-stm32's driver is not used for one reason: a word that a power cut left half programmed raises the non-maskable interrupt
//! when it is read, and state and queue must be able to read over such words. Here the interrupt notes it and the read fails.

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use cortex_m_rt::exception;
use forebay_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, PAGE, ReadNorFlash, WORD, check_erase, check_read, check_write, map,
};
use stm32_metapac::FLASH;
use stm32_metapac::flash::regs::Sr;

const WORD_BYTES: usize = WORD as usize;
const BANK: u32 = map::ALL.end / 2;
const KEYS: [u32; 2] = [0x4567_0123, 0xcdef_89ab];

static TORN: AtomicBool = AtomicBool::new(false);

/// The flash. One at a time.
#[derive(Debug)]
pub struct Flash(());

/// What it fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashError {
    /// A word that a power cut left half programmed was read.
    Torn,
    /// The controller refused: the status register.
    Refused(u32),
    /// No flash would do it: not aligned, or beyond the end.
    Misused(NorFlashErrorKind),
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            FlashError::Misused(kind) => *kind,
            FlashError::Torn | FlashError::Refused(_) => NorFlashErrorKind::Other,
        }
    }
}

impl Flash {
    /// Takes the flash into use.
    ///
    /// # Errors
    /// Never, on this board.
    pub fn open() -> Result<Flash, FlashError> {
        Ok(Flash(()))
    }

    /// One operation of the controller: unlocked before, locked after, with the data cache off in between (ES0250: it may be
    /// corrupted by a write to the other bank) and empty afterwards.
    fn operate(&mut self, operation: impl FnOnce()) -> Result<(), FlashError> {
        wait();
        if FLASH.cr().read().lock() {
            KEYS.into_iter().for_each(|key| FLASH.keyr().write_value(key));
        }
        // Errors of earlier operations are cleared by writing what was read.
        FLASH.sr().write_value(FLASH.sr().read());
        FLASH.acr().modify(|register| register.set_dcen(false));
        operation();
        wait();
        let status = FLASH.sr().read();
        FLASH.sr().write_value(status);
        FLASH.cr().modify(|register| {
            register.set_pg(false);
            register.set_per(false);
            register.set_lock(true);
        });
        FLASH.acr().modify(|register| {
            register.set_dcrst(true);
            register.set_icen(false);
            register.set_icrst(true);
        });
        FLASH.acr().modify(|register| {
            register.set_dcrst(false);
            register.set_icrst(false);
            register.set_dcen(true);
            register.set_icen(true);
        });
        if failed(status) {
            Err(FlashError::Refused(status.0))
        } else {
            Ok(())
        }
    }
}

fn wait() {
    while FLASH.sr().read().bsy() {}
}

fn failed(status: Sr) -> bool {
    status.operr()
        || status.progerr()
        || status.wrperr()
        || status.pgaerr()
        || status.sizerr()
        || status.pgserr()
        || status.miserr()
        || status.fasterr()
}

impl ErrorType for Flash {
    type Error = FlashError;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        check_read(self, offset, bytes.len()).map_err(FlashError::Misused)?;
        TORN.store(false, Ordering::Relaxed);
        for (index, byte) in bytes.iter_mut().enumerate() {
            let at = map::BASE + offset + index as u32;
            // SAFETY: within the flash, which is mapped and readable; volatile, because it changes by writes and a torn word interrupts.
            *byte = unsafe { ptr::read_volatile(at as *const u8) };
        }
        cortex_m::asm::dsb();
        if TORN.load(Ordering::Relaxed) {
            Err(FlashError::Torn)
        } else {
            Ok(())
        }
    }

    fn capacity(&self) -> usize {
        map::ALL.end as usize
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD_BYTES;
    const ERASE_SIZE: usize = PAGE as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        check_erase(self, from, to).map_err(FlashError::Misused)?;
        for at in (from..to).step_by(PAGE as usize) {
            self.operate(|| {
                FLASH.cr().modify(|register| {
                    register.set_per(true);
                    register.set_bker(at >= BANK);
                    register.set_pnb((at % BANK / PAGE) as u8);
                });
                FLASH.cr().modify(|register| register.set_start(true));
            })?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        check_write(self, offset, bytes.len()).map_err(FlashError::Misused)?;
        for (index, word) in bytes.chunks_exact(WORD_BYTES).enumerate() {
            let at = (map::BASE + offset + index as u32 * WORD) as *mut u32;
            let low = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let high = u32::from_le_bytes([word[4], word[5], word[6], word[7]]);
            self.operate(|| {
                FLASH.cr().modify(|register| register.set_pg(true));
                // SAFETY: within the flash and aligned; the controller takes the two halves of a word in this order.
                unsafe {
                    ptr::write_volatile(at, low);
                    cortex_m::asm::isb();
                    ptr::write_volatile(at.add(1), high);
                }
            })?;
        }
        Ok(())
    }
}

/// Two wrong bits in a word of flash come here (RM0351, 3.3.2). Anything else that does is a failed clock, after which nothing is sure.
#[exception]
unsafe fn NonMaskableInt() {
    if FLASH.eccr().read().eccd() {
        FLASH.eccr().modify(|register| register.set_eccd(true));
        TORN.store(true, Ordering::Relaxed);
    } else {
        crate::reset();
    }
}
