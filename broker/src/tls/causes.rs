//! What is wrong with a certificate that the verifier refuses, found by looking at it. The verifier says it to programmers, or takes it
//! for something else.

use forebay_topic::PeerText;
use x509_parser::der_parser::oid::Oid;
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_NAME_CONSTRAINTS,
    OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

use super::utc_text;

/// The least bits of an RSA key.
const MIN_RSA_BITS: usize = 2048;

/// Kinds of keys, and curves of the first.
const EC: &str = "1.2.840.10045.2.1";
const ED448: &str = "1.3.101.113";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";

/// Signatures that are not accepted any more: MD5 and SHA-1 with RSA, SHA-1 with ECDSA, and an old name of SHA-1 with RSA.
const OUTDATED: [&str; 4] = ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1", "1.3.14.3.2.29"];

/// Extensions that may be critical.
const KNOWN: [Oid<'static>; 5] = [
    OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_NAME_CONSTRAINTS,
];

/// Why a peer's own certificate cannot be used whoever issued it; `None` if it is not for a reason that is known here.
pub(super) fn of_leaf(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    if certificate.version() != X509Version::V3 {
        return Some(
            "it is an X.509 certificate of version 1, which cannot say what it is for; `openssl x509 -req` makes such ones unless `-extfile` names extensions"
                .to_owned(),
        );
    }
    if certificate.is_ca() {
        return Some("it is a CA's (CA:TRUE), and a device must not hold one; issue it with CA:FALSE".to_owned());
    }
    of_key(&certificate).or_else(|| of_any(&certificate))
}

/// The same of a certificate between the peer's own and the CA.
pub(super) fn of_intermediate(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let found = of_any(&certificate)?;
    let subject = certificate.subject().to_string();
    Some(format!("of the CA \"{}\" that it sent: {found}", PeerText::new(&subject)))
}

/// The bits of an RSA key that is too short for its signatures to be taken. They look like those of another key.
pub(super) fn short_rsa_key(der: &[u8]) -> Option<usize> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    match certificate.public_key().parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()).filter(|bits| *bits < MIN_RSA_BITS),
        _ => None,
    }
}

/// Which of these certificates ended at this time, by its subject; the verifier does not say whose the end is.
pub(super) fn ended_at(chain: &[Vec<u8>], not_after: &str) -> Option<String> {
    chain.iter().find_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let ends = utc_text(certificate.validity().not_after.timestamp());
        (ends == not_after).then(|| certificate.subject().to_string())
    })
}

/// Kinds of keys whose signatures are not taken.
fn of_key(certificate: &X509Certificate<'_>) -> Option<String> {
    let algorithm = &certificate.public_key().algorithm;
    let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let kind = match (
        algorithm.algorithm.to_id_string().as_str(),
        curve.map(|curve| curve.to_id_string()).as_deref(),
    ) {
        (EC, Some(P256 | P384)) => return None,
        (EC, Some(P521)) => "on the curve P-521".to_owned(),
        (EC, Some(other)) => format!("on the curve {other}"),
        (ED448, _) => "Ed448".to_owned(),
        _ => return None,
    };
    Some(format!(
        "its key is {kind}; P-256, P-384, Ed25519 and RSA of 2048 bits or more are taken"
    ))
}

fn of_any(certificate: &X509Certificate<'_>) -> Option<String> {
    let signed_by = certificate.signature_algorithm.algorithm.to_id_string();
    if OUTDATED.contains(&signed_by.as_str()) {
        return Some("it was signed with SHA-1 or MD5, which is not accepted any more; sign it with SHA-256".to_owned());
    }
    let unknown = certificate
        .extensions()
        .iter()
        .find(|extension| extension.critical && !KNOWN.contains(&extension.oid));
    let oid = unknown?.oid.to_id_string();
    Some(format!(
        "it has the critical extension {oid}, which is not known here; leave that out, or let it not be critical"
    ))
}
