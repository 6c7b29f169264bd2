//! Windows on a flash: a part of it, and one shared by several owners.

use core::cell::RefCell;
use core::ops::Range;

use crate::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// A part of a flash; offsets begin at 0 and nothing outside can be reached.
#[derive(Debug)]
pub struct Region<F> {
    flash: F,
    range: Range<u32>,
}

impl<F: ReadNorFlash> Region<F> {
    /// The part `range` of `flash`.
    ///
    /// # Panics
    /// If the range is not within the flash or not cut at pages: the map is wrong.
    pub fn new(flash: F, range: Range<u32>) -> Region<F> {
        assert!(range.start <= range.end && range.end as usize <= flash.capacity());
        assert!(range.start.is_multiple_of(crate::PAGE) && range.end.is_multiple_of(crate::PAGE));
        Region { flash, range }
    }

    fn within(&self, offset: u32, length: usize) -> Result<u32, RegionError<F::Error>> {
        let room = self.range.end - self.range.start;
        match u32::try_from(length).ok().and_then(|length| offset.checked_add(length)) {
            Some(end) if end <= room => Ok(self.range.start + offset),
            _ => Err(RegionError::OutOfBounds),
        }
    }
}

/// What an operation on a [`Region`] fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionError<E> {
    /// The flash itself failed.
    Flash(E),
    /// The operation reached outside the region.
    OutOfBounds,
}

impl<E: NorFlashError> NorFlashError for RegionError<E> {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            RegionError::Flash(error) => error.kind(),
            RegionError::OutOfBounds => NorFlashErrorKind::OutOfBounds,
        }
    }
}

impl<F: ErrorType> ErrorType for Region<F> {
    type Error = RegionError<F::Error>;
}

impl<F: ReadNorFlash> ReadNorFlash for Region<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        let at = self.within(offset, bytes.len())?;
        self.flash.read(at, bytes).map_err(RegionError::Flash)
    }

    fn capacity(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }
}

impl<F: NorFlash> NorFlash for Region<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        let length = to.checked_sub(from).ok_or(RegionError::OutOfBounds)?;
        let at = self.within(from, length as usize)?;
        self.flash.erase(at, at + length).map_err(RegionError::Flash)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        let at = self.within(offset, bytes.len())?;
        self.flash.write(at, bytes).map_err(RegionError::Flash)
    }
}

/// One flash with several owners in one thread; each operation borrows it for its duration only.
#[derive(Debug)]
pub struct Shared<'a, F>(pub &'a RefCell<F>);

impl<F> Clone for Shared<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Shared<'_, F> {}

impl<F: ErrorType> ErrorType for Shared<'_, F> {
    type Error = F::Error;
}

impl<F: ReadNorFlash> ReadNorFlash for Shared<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.borrow_mut().read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.borrow().capacity()
    }
}

impl<F: NorFlash> NorFlash for Shared<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.0.borrow_mut().erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.borrow_mut().write(offset, bytes)
    }
}
