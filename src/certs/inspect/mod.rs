//! What a certificate file holds, and what is wrong with it: for `forebay certs show` and `forebay check`.

mod chain;
mod ends;
mod judge;
mod rung;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_broker::tls::pem_fault;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

pub(crate) use ends::{crl_ends, first_end};
pub(crate) use rung::Rung;

const MAX_FILE: u64 = 1024 * 1024;

/// What a certificate is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Usage {
    /// The gateway's, towards devices
    Server,
    /// A device's, or the gateway's towards the cloud
    Client,
    /// A bundle of CAs, each judged by itself
    Ca,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// A short stable word for it.
    pub(crate) label: &'static str,
    /// False for what works today and should still be looked at.
    pub(crate) serious: bool,
    /// In plain words, with what to do.
    pub(crate) text: String,
}

/// A chain from leaf to root (or the CAs of a bundle, in file order), and what is wrong: what must be fixed first comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Inspection {
    /// The certificates.
    pub(crate) ladder: Vec<Rung>,
    /// The problems; empty if nothing is wrong.
    pub(crate) problems: Vec<Problem>,
}

impl Inspection {
    /// True if nothing keeps it from working at this time.
    pub(crate) fn works(&self) -> bool {
        self.problems.iter().all(|problem| !problem.serious)
    }
}

impl Problem {
    fn serious(label: &'static str, text: String) -> Self {
        Self {
            label,
            serious: true,
            text,
        }
    }

    fn warning(label: &'static str, text: String) -> Self {
        Self {
            label,
            serious: false,
            text,
        }
    }
}

/// Examines the chain in `chain_path` for `usage`, with its `key` and the CAs in `ca` if given, against the `names` that peers dial.
///
/// A file that cannot be read is a problem like any other, so that a caller can list all problems of all files.
pub(crate) fn inspect(
    chain_path: &Path,
    key: Option<&Path>,
    ca: Option<&Path>,
    usage: Usage,
    names: &[String],
    now: SystemTime,
) -> Inspection {
    let mut problems = Vec::new();
    let chain = certificates(chain_path).unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let authorities = match ca.map(certificates) {
        Some(Ok(found)) => Some(found),
        Some(Err(problem)) => {
            problems.push(problem);
            None
        }
        None => None,
    };
    let parsed = parse(&chain, chain_path, &mut problems);
    let parsed_authorities = authorities.as_ref().zip(ca).map(|(found, path)| parse(found, path, &mut problems));
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);

    let ladder = match usage {
        Usage::Ca => parsed.iter().collect(),
        Usage::Server | Usage::Client => chain::climb(&parsed, parsed_authorities.as_deref(), ca, &mut problems),
    };
    if let (Some(key), Some(leaf)) = (key, chain.first()) {
        problems.extend(key_problem(leaf, chain_path, key));
        problems.extend(open_key(key));
    }
    judge::ladder(&ladder, usage, names, now, &mut problems);
    // Stable, so that within each half the order of the checks stays: file, chain, key, usage, time, names, strength.
    problems.sort_by_key(|problem| !problem.serious);
    Inspection {
        ladder: ladder.into_iter().map(Rung::of).collect(),
        problems,
    }
}

/// What the first certificate of a file looks meant for; a server if it cannot be told.
pub(crate) fn likely_usage(chain_path: &Path) -> Usage {
    let Ok(chain) = certificates(chain_path) else {
        return Usage::Server;
    };
    let Some(Ok((_, leaf))) = chain.first().map(|der| X509Certificate::from_der(der)) else {
        return Usage::Server;
    };
    if leaf.is_ca()
        && chain
            .iter()
            .all(|der| X509Certificate::from_der(der).is_ok_and(|(_, certificate)| certificate.is_ca()))
    {
        return Usage::Ca;
    }
    let extended = leaf.extended_key_usage().ok().flatten();
    match extended {
        Some(usage) if usage.value.client_auth && !usage.value.server_auth => Usage::Client,
        // AWS IoT issues client certificates without an extended key usage and without names.
        None if leaf.subject_alternative_name().ok().flatten().is_none() => Usage::Client,
        _ => Usage::Server,
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| {
        Problem::serious(
            "damaged",
            format!(
                "{} is damaged ({}); replace it with a fresh copy",
                path.display(),
                pem_fault(&error)
            ),
        )
    })?;
    if found.is_empty() {
        let text = format!(
            "{} holds no `BEGIN CERTIFICATE` block; it must be a PEM file with a certificate",
            path.display()
        );
        return Err(Problem::serious("no_certificate", text));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |reason: String| Problem::serious("unreadable", format!("{} cannot be read: {reason}", path.display()));
    let size = path.metadata().map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_FILE {
        return Err(unreadable(format!(
            "it has {size} bytes, more than {MAX_FILE}; is it the right file?"
        )));
    }
    std::fs::read(path).map_err(|error| unreadable(error.to_string()))
}

fn parse<'a>(chain: &'a [CertificateDer<'static>], path: &Path, problems: &mut Vec<Problem>) -> Vec<X509Certificate<'a>> {
    let mut parsed = Vec::new();
    for (at, der) in chain.iter().enumerate() {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => parsed.push(certificate),
            Err(error) => {
                let text = format!(
                    "certificate {} in {} is damaged ({error}); replace it with a fresh copy",
                    at + 1,
                    path.display()
                );
                problems.push(Problem::serious("damaged", text));
            }
        }
    }
    parsed
}

fn key_problem(leaf: &CertificateDer<'static>, chain_path: &Path, path: &Path) -> Option<Problem> {
    let pem = match read(path) {
        Ok(pem) => pem,
        Err(problem) => return Some(problem),
    };
    let key = match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => key,
        Err(error) => {
            let text = format!(
                "{} holds no private key that can be read ({}); it must be PEM and not encrypted",
                path.display(),
                pem_fault(&error)
            );
            return Some(Problem::serious("no_key", text));
        }
    };
    match CertifiedKey::from_der(vec![leaf.clone()], key, &ring::default_provider()) {
        Ok(_) => None,
        Err(rustls::Error::InconsistentKeys(_)) => {
            let text = format!(
                "the key {} does not belong to the first certificate in {}; pair the files that were made together, own certificate first",
                path.display(),
                chain_path.display()
            );
            Some(Problem::serious("key_mismatch", text))
        }
        Err(error) => Some(Problem::serious(
            "key_unusable",
            format!("the key {} cannot be used ({error}); use ECDSA P-256", path.display()),
        )),
    }
}

#[cfg(unix)]
fn open_key(path: &Path) -> Option<Problem> {
    use std::os::unix::fs::PermissionsExt;
    let mode = path.metadata().ok()?.permissions().mode();
    let text = || {
        format!(
            "every user of this machine can read the key {} (mode {:03o}); chmod 600 it",
            path.display(),
            mode & 0o777
        )
    };
    (mode & 0o004 != 0).then(|| Problem::warning("key_open", text()))
}

#[cfg(not(unix))]
fn open_key(_path: &Path) -> Option<Problem> {
    None
}

/// How many whole days `seconds` are.
fn days(seconds: i64) -> i64 {
    seconds / 86_400
}
