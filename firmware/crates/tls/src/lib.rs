//! Mutual TLS 1.3 for the device: rustls without `std`, over one small provider.
//!
//! One suite (TLS13_AES_128_GCM_SHA256), one group (secp256r1), one signature (ECDSA P-256 with SHA-256): what the gateway
//! always offers, and a quarter of the flash that a general provider takes.
//!
//! What holds of a connection that [`Client`] opened:
//! 1. The gateway's chain leads to the CA that was given, by certificates that may sign; its leaf is for servers, bears the
//!    name that was dialled as a subject alternative name (a common name is never looked at) and has not expired.
//! 2. The gateway proved that it has the leaf's key, in a handshake from which nothing was left out.
//! 3. The device proved its own key. Its leaf is shown to nobody before 1 and 2 hold.
//!
//! No session is resumed: each connection judges the certificate again. rustls and the crates below it do the judging;
//! this crate gives them a clock, numbers and bytes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
mod judge;
mod provider;
mod stream;
mod validity;

pub use client::{Client, Identity, NotUsable};

pub use provider::provider;
pub use rustls::crypto::{GetRandomFailed, SecureRandom};
pub use stream::{RECORD_BYTES, Stream};
