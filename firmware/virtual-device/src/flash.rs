//! Flash that a host has: memory, or a file that outlives the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use forebay_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, PAGE, ReadNorFlash, WORD};

/// Pages of flash with the geometry of the device's.
#[derive(Debug)]
pub struct Flash {
    bytes: Vec<u8>,
    file: Option<File>,
}

/// The file could not be written, or an operation reached beyond the end.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// The file failed.
    #[error("the file that stands for flash could not be written")]
    File(#[from] io::Error),
    /// Outside, or not on a word's or page's boundary.
    #[error("an operation reached outside the flash or its boundaries")]
    Bounds,
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::File(_) => NorFlashErrorKind::Other,
            Self::Bounds => NorFlashErrorKind::OutOfBounds,
        }
    }
}

impl Flash {
    /// Erased flash in memory: its device forgets at its end.
    pub fn in_memory(pages: u32) -> Self {
        Self {
            bytes: vec![0xff; (pages * PAGE) as usize],
            file: None,
        }
    }

    /// Flash in a file, made erased if it is not there. Only one process may use it.
    ///
    /// # Errors
    /// The file cannot be opened, read, locked or has another size.
    pub fn in_file(path: &Path, pages: u32) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock()
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"))?;
        let mut flash = Self::in_memory(pages);
        match file.metadata()?.len() {
            0 => file.write_all_at(&flash.bytes, 0)?,
            length if length == flash.bytes.len() as u64 => file.read_exact_at(&mut flash.bytes, 0)?,
            length => {
                let wanted = flash.bytes.len();
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("it has {length} bytes instead of {wanted}: it is not this device's flash"),
                ));
            }
        }
        flash.file = Some(file);
        Ok(flash)
    }

    fn range(&self, offset: u32, length: usize, unit: u32) -> Result<std::ops::Range<usize>, FlashError> {
        let start = offset as usize;
        let is_cut = !offset.is_multiple_of(unit) || !length.is_multiple_of(unit as usize);
        if is_cut || start + length > self.bytes.len() {
            return Err(FlashError::Bounds);
        }
        Ok(start..start + length)
    }

    fn save(&self, range: std::ops::Range<usize>) -> Result<(), FlashError> {
        if let Some(file) = &self.file {
            file.write_all_at(&self.bytes[range.clone()], range.start as u64)?;
        }
        Ok(())
    }
}

impl ErrorType for Flash {
    type Error = FlashError;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        bytes.copy_from_slice(&self.bytes[self.range(offset, bytes.len(), 1)?]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD as usize;
    const ERASE_SIZE: usize = PAGE as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        let range = self.range(from, to.saturating_sub(from) as usize, PAGE)?;
        self.bytes[range.clone()].fill(0xff);
        self.save(range)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        let range = self.range(offset, bytes.len(), WORD)?;
        for (old, new) in self.bytes[range.clone()].iter_mut().zip(bytes) {
            *old &= new;
        }
        self.save(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_in_a_file_is_found_again_and_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flash");
        let mut flash = Flash::in_file(&path, 2).unwrap();
        flash.write(8, &[0x5a; 8]).unwrap();
        assert!(Flash::in_file(&path, 2).unwrap_err().to_string().contains("another process"));
        drop(flash);
        let mut read = [0; 16];
        Flash::in_file(&path, 2).unwrap().read(0, &mut read).unwrap();
        assert_eq!(read, [[0xff; 8], [0x5a; 8]].concat()[..]);
        assert!(Flash::in_file(&path, 3).is_err());
    }
}
