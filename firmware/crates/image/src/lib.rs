//! Signed images, slots, trial and rollback, and the state that survives power cuts.
#![no_std]
#![forbid(unsafe_code)]
