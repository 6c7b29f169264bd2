//! What of a peer's certificate chain is verified at all.
//!
//! # The promise
//!
//! A verifier that searches a path to a CA may try each certificate that a peer sent as the issuer of each other, before any
//! signature is checked. Nine certificates with one name and many extensions keep it busy for seconds, and the peer needs none of
//! ours for that. [`bounded`] takes from what was sent what can be part of a path, and refuses more than the limits, by comparing
//! names only: its own time is in proportion to the bytes that were sent. The front asks it for devices, the gateway for the cloud,
//! and the device for the gateway.
//!
//! # What it is not for
//!
//! It verifies nothing. What it returns is as untrusted as what it was given.
//!
//! # Limits
//!
//! [`MAX_INTERMEDIATES`] certificates beside the peer's own, and [`MAX_BYTES`] with it. A certificate that names itself as its
//! issuer is left out: if it is a CA that is trusted, the verifier has it already. So is one that was sent twice, and one that
//! issued none of the others; they count in no limit.
//!
//! # Example
//!
//! ```
//! use forebay_chain::{Unbounded, bounded};
//!
//! let sent: [&[u8]; 1] = [b"not a certificate"];
//! assert_eq!(bounded(b"nor is this", &sent), Ok(vec![]));
//! assert_eq!(bounded(&[0; 9000], &sent), Err(Unbounded::Large { bytes: 9000 }));
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::fmt;

pub mod der;
mod names;

use names::Names;

/// Certificates beside the peer's own that are verified, at most. Public chains have one to three.
pub const MAX_INTERMEDIATES: usize = 3;

/// Bytes of the peer's certificate and those that lead from it to a CA, at most. Four of RSA 4096 fit.
pub const MAX_BYTES: usize = 8 * 1024;

/// Why a chain is not verified. Stable text for logs; it holds nothing that the peer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbounded {
    /// More than [`MAX_INTERMEDIATES`] lead from the peer's certificate to a CA.
    Long,
    /// More than [`MAX_BYTES`].
    Large {
        /// The bytes that were counted before the search ended.
        bytes: usize,
    },
}

impl fmt::Display for Unbounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long => write!(
                f,
                "more than {MAX_INTERMEDIATES} certificates lead from its own towards a CA; send only those that are needed"
            ),
            Self::Large { bytes } => write!(
                f,
                "its certificates have {bytes} bytes or more (at most {MAX_BYTES}); send only those that are needed"
            ),
        }
    }
}

impl core::error::Error for Unbounded {}

/// Those of `sent` that may lead from `leaf` to a CA, whatever their order: each one's subject is the issuer of `leaf` or of another
/// that was taken.
///
/// # Errors
/// [`Unbounded`]: more or larger than the limits. Bytes that are no certificate are left out.
pub fn bounded<C: AsRef<[u8]> + Clone>(leaf: &[u8], sent: &[C]) -> Result<Vec<C>, Unbounded> {
    let mut bytes = leaf.len();
    if bytes > MAX_BYTES {
        return Err(Unbounded::Large { bytes });
    }
    let mut wanted: Vec<&[u8]> = Vec::new();
    let mut taken: Vec<&C> = Vec::new();
    wanted.extend(Names::of(leaf).map(|names| names.issuer));
    // A pass that takes nothing is the last; each of the others takes one at least.
    loop {
        let before = taken.len();
        for certificate in sent {
            let der = certificate.as_ref();
            let Some(names) = Names::of(der) else { continue };
            let leads = names.subject != names.issuer && wanted.contains(&names.subject);
            if !leads || taken.iter().any(|known| known.as_ref() == der) {
                continue;
            }
            bytes += der.len();
            if taken.len() == MAX_INTERMEDIATES {
                return Err(Unbounded::Long);
            }
            if bytes > MAX_BYTES {
                return Err(Unbounded::Large { bytes });
            }
            wanted.push(names.issuer);
            taken.push(certificate);
        }
        if taken.len() == before {
            return Ok(taken.into_iter().cloned().collect());
        }
    }
}

#[cfg(test)]
mod tests;
