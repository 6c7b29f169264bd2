//! What the emulated board hands to the application.

use embedded_hal_async::i2c::{self, I2c, NoAcknowledgeSource, Operation};
use forebay_board::Parts;

use crate::flash::{Flash, FlashError};
use crate::{QemuPlatform, Wifi, time, wifi};

/// Takes the board into use. Called once.
///
/// # Errors
/// If `flash.bin` is missing.
pub fn parts() -> Result<Parts<QemuPlatform, Flash, Wifi, NoBus>, FlashError> {
    time::begin();
    Ok(Parts {
        platform: QemuPlatform::new(),
        flash: Flash::open()?,
        wifi: wifi::begin(),
        sensors: NoBus,
    })
}

/// A bus on which nobody answers: the emulator has no I2C.
#[derive(Debug)]
pub struct NoBus;

impl i2c::ErrorType for NoBus {
    type Error = i2c::ErrorKind;
}

impl I2c for NoBus {
    async fn transaction(&mut self, _: u8, _: &mut [Operation<'_>]) -> Result<(), i2c::ErrorKind> {
        Err(i2c::ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address))
    }
}
