//! The two names of a certificate, as the bytes they are written in, and nothing else of it.

use crate::der::{from_issuer, sequence};

/// Whom a certificate is for, and who says that it signed it. Names are the same if their bytes are, as in the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
}

impl<'a> Names<'a> {
    /// `None` if these are not the bytes of a certificate.
    pub(crate) fn of(certificate: &'a [u8]) -> Option<Self> {
        let (issuer, rest) = sequence(from_issuer(certificate)?)?;
        let (_validity, rest) = sequence(rest)?;
        let (subject, _) = sequence(rest)?;
        Some(Self { issuer, subject })
    }
}
