//! The load generator and what the benchmarks around it share.
//!
//! # What is measured, and how
//!
//! 1. One thread drives all clients, so that the server has the other cores. Its own CPU time is reported; where it nears one core, the
//!    generator is the limit and the rate is a lower bound.
//! 2. Closed loop (`inflight` per client): an ack's latency runs from the moment its publish was handed to the socket's buffer. At saturation
//!    that is queueing: publishes in flight divided by the rate.
//! 3. Paced: latency runs from the moment the publish was *due*, so a server that stalls is charged for what waited meanwhile. What the
//!    generator itself was late is in it, and reported apart.
//! 4. Everyone is connected before the clock starts; the warm-up is not counted.

pub mod bench;
mod calm;
pub mod certificates;
mod client;
pub mod collector;
mod diary;
pub mod engine;
pub mod figures;
pub mod generator;
mod histogram;
pub mod image;
pub mod machine;
mod pace;
pub mod producers;
pub mod report;
pub mod server;
pub mod sink;
pub mod system;
mod transport;

pub use calm::Calm;
pub use histogram::Histogram;
