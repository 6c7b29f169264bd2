//! TLS 1.3 with mutual authentication for a device without an operating system.
#![no_std]
#![forbid(unsafe_code)]
