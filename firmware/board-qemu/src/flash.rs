//! The emulated flash: memory for what was there at the start, `flash.bin` for what was written since.
//!
//! QEMU's flash is read-only to the guest. The harness starts the emulator with `flash.bin` as its memory, so both are the same at
//! the start, and a slot's page that was not written since is read from memory: what is verified is what is executed. All other pages
//! are read from the file, because the bootloader may have written them before the application started.

use core::slice;

use forebay_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, PAGE, ReadNorFlash, WORD, check_erase, check_read, check_write, map,
};

use crate::semihosting::File;

const PAGES: usize = (map::ALL.end / PAGE) as usize;
const WORD_BYTES: usize = WORD as usize;

/// The flash.
pub struct Flash {
    file: File,
    written: [bool; PAGES],
}

/// What it fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashError {
    /// The host's file could not be opened, read or written.
    Host,
    /// The word was not erased.
    NotErased,
    /// No flash would do it: not aligned, or beyond the end.
    Misused(NorFlashErrorKind),
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            FlashError::Misused(kind) => *kind,
            FlashError::Host | FlashError::NotErased => NorFlashErrorKind::Other,
        }
    }
}

impl Flash {
    /// Opens `flash.bin`.
    ///
    /// # Errors
    /// If the harness did not put it there.
    pub fn open() -> Result<Flash, FlashError> {
        let file = File::read_write(c"flash.bin").map_err(|_| FlashError::Host)?;
        Ok(Flash {
            file,
            written: [false; PAGES],
        })
    }

    fn memory() -> &'static [u8] {
        // SAFETY: the whole flash is mapped here, readable, and never changes while the emulator runs.
        unsafe { slice::from_raw_parts(map::BASE as *const u8, map::ALL.end as usize) }
    }
}

impl ErrorType for Flash {
    type Error = FlashError;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        check_read(self, offset, bytes.len()).map_err(FlashError::Misused)?;
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = (PAGE - at % PAGE) as usize;
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            let in_slot = (map::SLOT_A.start..map::SLOT_B.end).contains(&at);
            if !in_slot || self.written[(at / PAGE) as usize] {
                self.file.read(at, now).map_err(|_| FlashError::Host)?;
            } else {
                now.copy_from_slice(&Flash::memory()[at as usize..at as usize + now.len()]);
            }
            at += now.len() as u32;
            rest = later;
        }
        Ok(())
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
        for page in from / PAGE..to / PAGE {
            self.written[page as usize] = true;
            self.file.write(page * PAGE, &[0xff; PAGE as usize]).map_err(|_| FlashError::Host)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        check_write(self, offset, bytes.len()).map_err(FlashError::Misused)?;
        for (index, word) in bytes.chunks_exact(WORD_BYTES).enumerate() {
            let at = offset + index as u32 * WORD;
            let mut old = [0; WORD_BYTES];
            self.read(at, &mut old)?;
            if old != [0xff; WORD_BYTES] && word != [0; WORD_BYTES] {
                return Err(FlashError::NotErased);
            }
            self.written[(at / PAGE) as usize] = true;
            self.file.write(at, word).map_err(|_| FlashError::Host)?;
        }
        Ok(())
    }
}
