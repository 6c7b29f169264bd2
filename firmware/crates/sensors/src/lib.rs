//! Drivers for the sensors of the B-L475E-IOT01A.
#![no_std]
#![forbid(unsafe_code)]
