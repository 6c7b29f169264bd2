//! Tests that need the crate from inside: decoders, failing disks, fuzzing, and the simulation.

mod decoders;
mod faults;
mod fuzz;
pub(crate) mod sim;
