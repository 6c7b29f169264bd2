//! Drivers for the sensors of the B-L475E-IOT01A on `embedded-hal-async` 1.0: HTS221, LPS22HB, LSM6DSL, LIS3MDL.
//!
//! All of them measure by themselves, slowly, and are asked for what they have: no wait, and no interrupt line. A driver does
//! not own the bus; [`Sensors`] does, and is the device core's probe. A sensor that does not answer is absent from a reading
//! and is begun anew before the next one.
#![no_std]
#![forbid(unsafe_code)]

mod hts221;
mod lis3mdl;
mod lps22hb;
mod lsm6dsl;
mod register;
mod sensors;

pub use hts221::Hts221;
pub use lis3mdl::Lis3mdl;
pub use lps22hb::Lps22hb;
pub use lsm6dsl::Lsm6dsl;
pub use register::Fault;
pub use sensors::Sensors;
