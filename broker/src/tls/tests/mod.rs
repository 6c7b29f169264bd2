//! Every class of handshake, through real rustls clients.
#![allow(clippy::unwrap_used)]

mod bench;
mod causes;
mod chains;
mod files;
mod handshakes;
mod strangers;
