//! The device's flash: how it is divided, and windows on its parts.
//!
//! Flash is reached through the traits of [`embedded_storage::nor_flash`], re-exported here. All code above them keeps to the
//! physics of the STM32L4: 2 KiB pages, programmed in 8-byte words, each word once after an erase (its ECC forbids a second
//! write), any operation torn by a power cut, and a torn word that may read as anything or as an error.
//!
//! `sim` (a feature, for tests on the host) is a simulator that enforces all of this and cuts the power at a chosen operation.
#![no_std]
#![forbid(unsafe_code)]

pub mod map;
mod region;
#[cfg(feature = "sim")]
pub mod sim;

pub use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
pub use region::{Region, Shared};

/// Bytes of one page, the least that can be erased.
pub const PAGE: u32 = 2048;

/// Bytes of one word, the least that can be written.
pub const WORD: u32 = 8;
