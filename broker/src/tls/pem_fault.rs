//! What is wrong with a PEM file, said without a byte of it: the file may be a private key, and the text is logged.

use rustls::pki_types::pem::Error;

/// Labels of PEM blocks that files around here may hold by mistake. Only these are ever named: what stands after `BEGIN` in
/// a file that lost its line breaks is the key.
const LABELS: [&str; 13] = [
    "CERTIFICATE",
    "TRUSTED CERTIFICATE",
    "CERTIFICATE REQUEST",
    "NEW CERTIFICATE REQUEST",
    "X509 CRL",
    "PRIVATE KEY",
    "EC PRIVATE KEY",
    "RSA PRIVATE KEY",
    "ENCRYPTED PRIVATE KEY",
    "OPENSSH PRIVATE KEY",
    "PUBLIC KEY",
    "EC PARAMETERS",
    "PKCS7",
];

/// What is wrong, in words of our own. The library's text shows the line that it stumbled over.
#[must_use]
pub fn pem_fault(error: &Error) -> String {
    match error {
        Error::IllegalSectionStart { .. } => {
            "its `-----BEGIN ...-----` is not a line of its own; the line breaks are missing, as after a copy through a shell or a form"
                .to_owned()
        }
        Error::MissingSectionEnd { .. } => {
            "its `-----END ...-----` line is missing; the file was cut off, or line breaks are missing".to_owned()
        }
        Error::Base64Decode(_) => "its Base64 is damaged".to_owned(),
        Error::NoItemsFound => "it holds no PEM block of the wanted kind".to_owned(),
        Error::SectionTooLarge => "a PEM block in it is too large".to_owned(),
        Error::Io(error) => format!("it cannot be read: {error}"),
        _ => "it is not PEM".to_owned(),
    }
}

/// The kinds of blocks in a file, five at most, for saying what was found instead of the wanted one.
pub(super) fn found_labels(pem: &[u8]) -> String {
    let lines = pem.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    let begun = lines.filter_map(|line| line.strip_prefix(b"-----BEGIN "));
    let named = begun.map(|rest| {
        let label = rest.strip_suffix(b"-----").unwrap_or(rest);
        let known = LABELS.iter().find(|known| known.as_bytes() == label);
        *known.unwrap_or(&"a `BEGIN` line that is not well-formed; are line breaks missing?")
    });
    let found: Vec<_> = named.take(5).collect();
    if found.is_empty() {
        "no PEM block at all".to_owned()
    } else {
        found.join(", ")
    }
}
