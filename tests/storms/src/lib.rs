//! Storms that one device can make, and a canary that tells what they do to another.
//!
//! The tests of the front, the siege of the whole gateway and the benchmark `storms` share them, so that a storm means the same
//! in all three. A storm goes on until it is dropped: a peer that closes on it is dialled again. [`Pace`] says how fast; it
//! counts what was done.
//!
//! # What a storm needs of the server
//!
//! A plain listener whose identities are client ids, for most of them: an identity publishes `devices/{identity}/#` and
//! subscribes `devices/{identity}/commands/#`, and `devices/+/telemetry` goes to the cloud. [`Storm::TlsGarbage`] goes to
//! a listener with TLS. A [`Sink`] takes them all, too.
#![forbid(unsafe_code)]

mod canary;
mod pace;
mod peer;
mod sink;
mod storm;

pub use canary::{Canary, quantile};
pub use pace::Pace;
pub use sink::Sink;
pub use storm::{Storm, Target};
