//! Images the harness offers as updates: `update.img` in the emulator's folder.
//!
//! The emulated serial line carries about 1 KB/s; a firmware image does not go through it.

use crate::semihosting::{File, HostError};

/// An offered image.
#[derive(Debug)]
pub struct Delivery {
    file: File,
    length: u32,
    at: u32,
}

impl Delivery {
    /// The image that is offered, if one is.
    pub fn offered() -> Option<Delivery> {
        let file = File::read_only(c"update.img").ok()?;
        let length = file.length().ok()?;
        Some(Delivery { file, length, at: 0 })
    }

    /// Reads the next bytes; gives how many, 0 at the end.
    ///
    /// # Errors
    /// If the host cannot.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, HostError> {
        let length = into.len().min((self.length - self.at) as usize);
        self.file.read(self.at, &mut into[..length])?;
        self.at += length as u32;
        Ok(length)
    }
}
