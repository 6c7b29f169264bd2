//! Mutual TLS for devices: rustls with its ring provider, TLS 1.2 and 1.3, a client certificate always required.
//!
//! * [`ServerTls`] has one listener's certificate, key, device CAs and revocation lists, loaded once and checked while loading.
//! * [`accept()`] ends the handshake of one connection under a deadline and tells what the peer presented, or why it failed.
//! * [`HandshakeFault`] classifies failures by what an operator does about them; its labels are a bounded set.
//! * [`IdentityTemplate`] turns a certificate (or a client id, or a fixed word) into an [`Identity`]: one topic level.
//! * [`CertificateClock`] is the time certificates are judged by: the system clock, but never earlier than a floor, because boards
//!   boot in the past.
//!
//! Nothing here is cached across connections: sessions are never resumed, so a certificate that was revoked or that expired is
//! judged again at every connect. A full handshake on P-256 costs well under a millisecond.
//!
//! Limits: PEM files of at most 1 MiB (revocation lists 16 MiB), 64 certificates per file, a handshake as long as its deadline, of a
//! peer's chain what `forebay_chain` lets through.

mod accept;
mod causes;
mod clock;
mod fault;
mod files;
mod identity;
mod names;
mod opening;
mod peer;
mod pem_fault;
mod server;
mod source;
mod verifier;

#[cfg(test)]
mod tests;

pub use accept::{Accepted, accept};
pub use clock::{CertificateClock, Judgement, Moment, start};
pub use fault::{HandshakeFailure, HandshakeFault};
pub use files::TlsError;
pub use identity::{Identity, IdentityError, IdentityTemplate, MAX_IDENTITY_BYTES, TemplateError};
pub use names::{certificate_names, name_is_covered};
pub use peer::{PeerCertificate, utc_text};
pub use pem_fault::pem_fault;
pub use server::{ServerTls, TlsFiles};
pub use source::TlsSource;
