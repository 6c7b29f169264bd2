//! Reads the PEM files of a listener, and says which file is wrong and what to do.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::pem_fault::{found_labels, pem_fault};

const MAX_PEM_BYTES: u64 = 1024 * 1024;
const MAX_CRL_BYTES: u64 = 16 * 1024 * 1024;
const MAX_CERTIFICATES: usize = 64;

/// Why a listener's TLS files cannot be used. All are the operator's to act on.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not there.
    #[error(
        "{role} {} does not exist; make it with `forebay certs` or correct `tls` of the listener (relative paths start at the configuration's folder)",
        path.display()
    )]
    Missing {
        /// What the file is.
        role: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("{role} {} cannot be read; let the user that runs forebay read it", path.display())]
    Unreadable {
        /// What the file is.
        role: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Larger than any such file should be.
    #[error("{role} {} is larger than {limit} bytes (or has over {MAX_CERTIFICATES} certificates); is it the right file?", path.display())]
    TooLarge {
        /// What the file is.
        role: &'static str,
        /// Which file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// No PEM block of the wanted kind.
    #[error("{role} {} has no `BEGIN {wanted}` block (found: {found}); it must be PEM, and a private key must not be encrypted", path.display())]
    NoPem {
        /// What the file is.
        role: &'static str,
        /// Which file.
        path: PathBuf,
        /// The expected block.
        wanted: &'static str,
        /// The blocks that are in the file.
        found: String,
    },
    /// A PEM block that does not decode.
    #[error("{role} {} is damaged: {detail}; replace it with a fresh copy", path.display())]
    Malformed {
        /// What the file is.
        role: &'static str,
        /// Which file.
        path: PathBuf,
        /// The decoder's reason.
        detail: String,
    },
    /// The key is another certificate's.
    #[error(
        "the private key {} does not belong to the first certificate in {}; put the server's own certificate first, or pair the files that were made together",
        key.display(),
        certificate.display()
    )]
    KeyMismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A kind of key that rustls with ring does not use.
    #[error("the private key {} cannot be used: {detail}; use ECDSA P-256 (as `forebay certs` does), P-384, Ed25519 or RSA of 2048 bits and more", path.display())]
    KeyUnsupported {
        /// The key file.
        path: PathBuf,
        /// The library's reason.
        detail: String,
    },
    /// A certificate among the device CAs is not a CA's: its key could issue devices.
    #[error("{} holds the certificate of \"{subject}\", which is not a CA; keep only CA certificates there", path.display())]
    NotACa {
        /// The CA file.
        path: PathBuf,
        /// The certificate's subject.
        subject: String,
    },
    /// A revocation list by a CA that is not in the CA file: it would revoke nothing.
    #[error("the revocation list {} is not signed by any CA in `client_ca` (it names \"{issuer}\"); add that CA or remove the list", path.display())]
    ForeignCrl {
        /// The list's file.
        path: PathBuf,
        /// The issuer that it names.
        issuer: String,
    },
    /// A list without the number and the extensions of version 2.
    #[error(
        "the revocation list {} is of version 1, and version 2 is needed; set `crl_extensions` and `crlnumber` in the CA's openssl.cnf and make the list again",
        path.display()
    )]
    OldCrl {
        /// The list's file.
        path: PathBuf,
    },
    /// Past its end by the judged time.
    #[error("the certificate of \"{subject}\" in {} expired at {not_after}; make a new one and restart", path.display())]
    Expired {
        /// Which file.
        path: PathBuf,
        /// The certificate's subject.
        subject: String,
        /// The end of its validity.
        not_after: String,
    },
    /// Before its start by the judged time.
    #[error("the certificate of \"{subject}\" in {} is valid only from {not_before}; set the clock, or make one with an earlier start", path.display())]
    NotYetValid {
        /// Which file.
        path: PathBuf,
        /// The certificate's subject.
        subject: String,
        /// The start of its validity.
        not_before: String,
    },
    /// The library refuses the combination.
    #[error("TLS cannot be set up from {}: {detail}", path.display())]
    Setup {
        /// The file it is about.
        path: PathBuf,
        /// The library's reason.
        detail: String,
    },
}

/// All certificates of a PEM file, in order; at least one.
pub(super) fn certificates(role: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(role, path, MAX_PEM_BYTES)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(role, path, &pem_fault(&error)))?;
    if found.is_empty() {
        return Err(no_pem(role, path, "CERTIFICATE", &pem));
    }
    if found.len() > MAX_CERTIFICATES {
        return Err(TlsError::TooLarge {
            role,
            path: path.to_owned(),
            limit: MAX_PEM_BYTES,
        });
    }
    Ok(found)
}

/// The first private key of a PEM file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let role = "the private key";
    let pem = read(role, path, MAX_PEM_BYTES)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        Error::NoItemsFound => no_pem(role, path, "PRIVATE KEY", &pem),
        other => malformed(role, path, &pem_fault(&other)),
    })
}

/// All revocation lists of a PEM file; at least one.
pub(super) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let role = "the revocation list";
    let pem = read(role, path, MAX_CRL_BYTES)?;
    let found: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(role, path, &pem_fault(&error)))?;
    if found.is_empty() {
        return Err(no_pem(role, path, "X509 CRL", &pem));
    }
    Ok(found)
}

fn read(role: &'static str, path: &Path, limit: u64) -> Result<Vec<u8>, TlsError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => TlsError::Missing {
            role,
            path: path.to_owned(),
        },
        _ => TlsError::Unreadable {
            role,
            path: path.to_owned(),
            source,
        },
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(TlsError::TooLarge {
            role,
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

pub(super) fn malformed(role: &'static str, path: &Path, detail: &str) -> TlsError {
    TlsError::Malformed {
        role,
        path: path.to_owned(),
        detail: detail.to_owned(),
    }
}

fn no_pem(role: &'static str, path: &Path, wanted: &'static str, pem: &[u8]) -> TlsError {
    TlsError::NoPem {
        role,
        path: path.to_owned(),
        wanted,
        found: found_labels(pem),
    }
}
