//! The few semihosting calls used here (Arm, "Semihosting for AArch32 and AArch64").

use core::arch::asm;
use core::ffi::CStr;

const SYS_OPEN: u32 = 0x01;
const SYS_CLOSE: u32 = 0x02;
const SYS_WRITE0: u32 = 0x04;
const SYS_WRITE: u32 = 0x05;
const SYS_READ: u32 = 0x06;
const SYS_SEEK: u32 = 0x0a;
const SYS_FLEN: u32 = 0x0c;
const SYS_CLOCK: u32 = 0x10;
const SYS_EXIT: u32 = 0x18;

const MODE_READ: u32 = 1;
const MODE_READ_WRITE: u32 = 3;
const APPLICATION_EXIT: u32 = 0x2_0026;
const RUN_TIME_ERROR: u32 = 0x2_0023;

fn call(number: u32, parameter: u32) -> i32 {
    let mut result = number;
    // SAFETY: a breakpoint with this immediate is a call to the emulator, which reads the parameter block and changes only r0
    // and what the block names; every caller passes memory that is alive for the call.
    unsafe {
        asm!("bkpt 0xab", inout("r0") result, in("r1") parameter, options(nostack));
    }
    result as i32
}

fn call_with(number: u32, block: &[u32]) -> i32 {
    call(number, block.as_ptr() as u32)
}

/// The emulator refused or could not finish a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError;

/// An open file of the host.
#[derive(Debug)]
pub struct File(u32);

impl File {
    /// Opens a file that exists, for reading.
    ///
    /// # Errors
    /// If there is none.
    pub fn read_only(name: &CStr) -> Result<File, HostError> {
        File::open(name, MODE_READ)
    }

    /// Opens a file that exists, for reading and writing.
    ///
    /// # Errors
    /// If there is none.
    pub fn read_write(name: &CStr) -> Result<File, HostError> {
        File::open(name, MODE_READ_WRITE)
    }

    fn open(name: &CStr, mode: u32) -> Result<File, HostError> {
        let handle = call_with(SYS_OPEN, &[name.as_ptr() as u32, mode, name.to_bytes().len() as u32]);
        u32::try_from(handle).map(File).map_err(|_| HostError)
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// If the host cannot tell.
    pub fn length(&self) -> Result<u32, HostError> {
        u32::try_from(call_with(SYS_FLEN, &[self.0])).map_err(|_| HostError)
    }

    /// Reads `into` in full from `offset`.
    ///
    /// # Errors
    /// If the file ends before.
    pub fn read(&self, offset: u32, into: &mut [u8]) -> Result<(), HostError> {
        self.seek(offset)?;
        // The answer is the number of bytes that are missing.
        match call_with(SYS_READ, &[self.0, into.as_mut_ptr() as u32, into.len() as u32]) {
            0 => Ok(()),
            _ => Err(HostError),
        }
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// If the host cannot.
    pub fn write(&self, offset: u32, bytes: &[u8]) -> Result<(), HostError> {
        self.seek(offset)?;
        match call_with(SYS_WRITE, &[self.0, bytes.as_ptr() as u32, bytes.len() as u32]) {
            0 => Ok(()),
            _ => Err(HostError),
        }
    }

    fn seek(&self, offset: u32) -> Result<(), HostError> {
        match call_with(SYS_SEEK, &[self.0, offset]) {
            0 => Ok(()),
            _ => Err(HostError),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        call_with(SYS_CLOSE, &[self.0]);
    }
}

/// Prints a text that ends with a zero.
pub fn print(text: &CStr) {
    call(SYS_WRITE0, text.as_ptr() as u32);
}

/// Hundredths of a second since the emulator began.
pub fn clock() -> u32 {
    call(SYS_CLOCK, 0) as u32
}

/// Ends the emulator: with success or with failure.
pub fn exit(success: bool) {
    call(SYS_EXIT, if success { APPLICATION_EXIT } else { RUN_TIME_ERROR });
}
