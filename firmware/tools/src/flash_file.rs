//! A whole flash as a file: what a programmer writes, what the emulator runs from.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use forebay_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, PAGE, ReadNorFlash, Region, WORD, map};
use forebay_image::{HEADER_BYTES, Header, Slot, State, StateLog, Trial};

/// The flash.
#[derive(Clone, Debug)]
pub struct FlashFile(Vec<u8>);

/// An operation the flash would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misuse;

impl NorFlashError for Misuse {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl FlashFile {
    /// An erased flash with the bootloader at its beginning.
    ///
    /// # Errors
    /// If the bootloader is too large.
    pub fn new(boot: &[u8]) -> Result<FlashFile> {
        if boot.len() > map::BOOT.len() {
            bail!("the bootloader has {} bytes, there is room for {}", boot.len(), map::BOOT.len());
        }
        let mut flash = FlashFile(vec![0xff; map::ALL.len()]);
        flash.0[..boot.len()].copy_from_slice(boot);
        Ok(flash)
    }

    /// Reads one.
    ///
    /// # Errors
    /// If the file is not as long as the flash.
    pub fn read_from(path: &Path) -> Result<FlashFile> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        if bytes.len() != map::ALL.len() {
            bail!("{} has {} bytes, a flash {}", path.display(), bytes.len(), map::ALL.len());
        }
        Ok(FlashFile(bytes))
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_to(&self, path: &Path) -> Result<()> {
        fs::write(path, &self.0).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Puts a signed image into a slot, as a programmer would.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn place(&mut self, image: &[u8], slot: Slot) -> Result<()> {
        let range = slot.range();
        if image.len() > range.len() {
            bail!("the image has {} bytes, the slot {}", image.len(), range.len());
        }
        let start = range.start as usize;
        self.0[start..range.end as usize].fill(0xff);
        self.0[start..start + image.len()].copy_from_slice(image);
        Ok(())
    }

    /// Gives the device its identity.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn provision(&mut self, identity: &[u8]) -> Result<()> {
        let range = map::PROVISION;
        if identity.len() > range.len() {
            bail!("the identity has {} bytes, there is room for {}", identity.len(), range.len());
        }
        let start = range.start as usize;
        self.0[start..range.end as usize].fill(0xff);
        self.0[start..start + identity.len()].copy_from_slice(identity);
        Ok(())
    }

    /// Asks the bootloader to try what is in `slot`, as a completed update does.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub fn put_on_trial(&mut self, slot: Slot) -> Result<()> {
        let mut log = StateLog::open(Region::new(self, map::STATE));
        let trial = Some(Trial { slot, tries: 0 });
        let state = State { trial, ..*log.state() };
        log.append(state)
            .map_err(|error| anyhow::anyhow!("cannot write the state: {error:?}"))
    }

    /// Flips a bit.
    pub fn flip_bit(&mut self, offset: u32, bit: u8) {
        self.0[offset as usize] ^= 1 << bit;
    }

    /// What bootloader and updater remember; nothing on a device that was never confirmed.
    pub fn state(&mut self) -> Option<State> {
        let log = StateLog::open(Region::new(self, map::STATE));
        (!log.is_blank()).then_some(*log.state())
    }

    /// The header in a slot, unverified.
    pub fn header(&self, slot: Slot) -> Option<Header> {
        let start = slot.range().start as usize;
        Header::decode(self.0[start..start + HEADER_BYTES].try_into().ok()?)
    }
}

impl ErrorType for FlashFile {
    type Error = Misuse;
}

impl ReadNorFlash for FlashFile {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Misuse> {
        let start = offset as usize;
        bytes.copy_from_slice(self.0.get(start..start + bytes.len()).ok_or(Misuse)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

impl NorFlash for FlashFile {
    const WRITE_SIZE: usize = WORD as usize;
    const ERASE_SIZE: usize = PAGE as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Misuse> {
        self.0.get_mut(from as usize..to as usize).ok_or(Misuse)?.fill(0xff);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Misuse> {
        let start = offset as usize;
        let place = self.0.get_mut(start..start + bytes.len()).ok_or(Misuse)?;
        for (old, new) in place.chunks_mut(WORD as usize).zip(bytes.chunks(WORD as usize)) {
            if old.iter().any(|byte| *byte != 0xff) && new.iter().any(|byte| *byte != 0) {
                return Err(Misuse);
            }
            old.copy_from_slice(new);
        }
        Ok(())
    }
}
