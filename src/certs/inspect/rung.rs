//! One certificate of a ladder, ready to print.

use rustls::crypto::ring::cipher_suite;
use serde::Serialize;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519};
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;

use forebay_broker::tls::{certificate_names, utc_text};

/// One certificate of a ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Rung {
    /// Whom it names.
    pub(crate) subject: String,
    /// Who it says has signed it.
    pub(crate) issuer: String,
    /// Serial number, hexadecimal with colons.
    pub(crate) serial: String,
    /// DNS names and addresses it is for.
    pub(crate) names: Vec<String>,
    /// Start of validity, RFC 3339.
    pub(crate) not_before: String,
    /// End of validity, RFC 3339.
    pub(crate) not_after: String,
    /// End of validity in seconds since 1970.
    pub(crate) not_after_seconds: i64,
    /// True for a CA.
    pub(crate) ca: bool,
    /// True if it names itself as its signer.
    pub(crate) self_signed: bool,
    /// Extended key usages, then key usages, in the standard's words.
    pub(crate) usages: Vec<String>,
    /// Kind and size of its key.
    pub(crate) key: String,
    /// SHA-256 over the whole certificate, lower-case hexadecimal; AWS IoT calls it the certificate id.
    pub(crate) sha256: String,
}

impl Rung {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            names: certificate_names(certificate.as_raw()),
            not_before: utc_text(validity.not_before.timestamp()),
            not_after: utc_text(validity.not_after.timestamp()),
            not_after_seconds: validity.not_after.timestamp(),
            ca: certificate.is_ca(),
            self_signed: certificate.subject() == certificate.issuer(),
            usages: usages(certificate),
            key: key_text(certificate),
            sha256: sha256(certificate.as_raw()),
        }
    }
}

/// The key's kind in the words people use.
pub(super) fn key_text(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(_)) => curve(certificate).to_owned(),
        _ if info.algorithm.algorithm == OID_SIG_ED25519 => "Ed25519".to_owned(),
        _ => format!("unknown ({})", info.algorithm.algorithm),
    }
}

fn curve(certificate: &X509Certificate<'_>) -> &'static str {
    let curve = certificate
        .public_key()
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    match curve {
        Some(oid) if oid == OID_EC_P256 => "ECDSA P-256",
        Some(oid) if oid == OID_NIST_EC_P384 => "ECDSA P-384",
        Some(oid) if oid == OID_NIST_EC_P521 => "ECDSA P-521",
        _ => "ECDSA on an unknown curve",
    }
}

fn usages(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut words = Vec::new();
    if let Ok(Some(extended)) = certificate.extended_key_usage() {
        let extended = extended.value;
        let known = [
            (extended.server_auth, "serverAuth"),
            (extended.client_auth, "clientAuth"),
            (extended.any, "any"),
            (extended.code_signing, "codeSigning"),
        ];
        words.extend(known.into_iter().filter(|(set, _)| *set).map(|(_, word)| word.to_owned()));
        words.extend(extended.other.iter().map(ToString::to_string));
    }
    if let Ok(Some(usage)) = certificate.key_usage() {
        let usage = usage.value;
        let known = [
            (usage.digital_signature(), "digitalSignature"),
            (usage.key_encipherment(), "keyEncipherment"),
            (usage.key_agreement(), "keyAgreement"),
            (usage.key_cert_sign(), "keyCertSign"),
            (usage.crl_sign(), "cRLSign"),
        ];
        words.extend(known.into_iter().filter(|(set, _)| *set).map(|(_, word)| word.to_owned()));
    }
    words
}

/// By the hash of rustls' own provider, so that no further crate comes in for it.
fn sha256(bytes: &[u8]) -> String {
    let Some(suite) = cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() else {
        return String::new();
    };
    let digest = suite.common.hash_provider.hash(bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
