//! What a device's certificate says about it.

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// The parts of a peer's certificate that are used: the name, and what an operator needs to find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's common name; `None` if there are several, because an identity must not depend on which one is read.
    pub cn: Option<String>,
    /// The first URI among the subject alternative names.
    pub san_uri: Option<String>,
    /// The first DNS name among the subject alternative names.
    pub san_dns: Option<String>,
    /// The subject, as text.
    pub subject: String,
    /// The name of the CA that the certificate says has signed it, as text.
    pub issuer: String,
    /// The serial number, in hexadecimal with colons.
    pub serial: String,
    /// Start of validity, in seconds since 1970.
    pub not_before: i64,
    /// End of validity, in seconds since 1970.
    pub not_after: i64,
}

impl PeerCertificate {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// The parser's reason, for bytes that are no X.509 certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let (san_uri, san_dns) = first_names(&certificate);
        Ok(Self {
            cn: single_common_name(&certificate),
            san_uri,
            san_dns,
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

/// Seconds since 1970 as `2026-11-23T06:20:47Z`; the bare number where it is no date.
pub fn utc_text(seconds: i64) -> String {
    let Ok(time) = ASN1Time::from_timestamp(seconds) else {
        return seconds.to_string();
    };
    let time = time.to_datetime();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn single_common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    }
}

fn first_names(certificate: &X509Certificate<'_>) -> (Option<String>, Option<String>) {
    let (mut uri, mut dns) = (None, None);
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::URI(text) if uri.is_none() => uri = Some((*text).to_owned()),
                GeneralName::DNSName(text) if dns.is_none() => dns = Some((*text).to_owned()),
                _ => {}
            }
        }
    }
    (uri, dns)
}
