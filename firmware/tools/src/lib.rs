//! Keys, signatures, flash images and the emulator, on the host.
//!
//! * [`keys`]: release keys as PKCS#8 files, and the list of public keys that images are built with.
//! * [`release`]: the header in front of a linked image.
//! * [`provision`]: what makes one device this device, from the files of `forebay certs`.
//! * [`flash_file`]: a whole flash as a file: put together, looked into, written as the device would.
//! * [`emulator`]: QEMU's B-L475E-IOT01A: started, started again after a reset, cut off, measured.
#![forbid(unsafe_code)]

pub mod emulator;
pub mod flash_file;
pub mod keys;
pub mod provision;
pub mod release;
