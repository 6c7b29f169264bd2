//! What a device does: measure, queue, publish, reconnect.
#![no_std]
#![forbid(unsafe_code)]
