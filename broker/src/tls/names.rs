//! The names a certificate is for.

use std::net::IpAddr;

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The DNS names and addresses among the subject alternative names of a DER certificate, in their order.
///
/// Empty for a certificate that has none or does not parse. The common name is not among them: no current client reads it.
pub fn certificate_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    certificate.extensions().iter().filter_map(alternative_names).flatten().collect()
}

/// True if a client that connects to `wanted` (a DNS name or an address) accepts a certificate for `names`.
///
/// DNS names compare without case; `*.` matches exactly one label; addresses compare by value.
pub fn name_is_covered(names: &[String], wanted: &str) -> bool {
    if let Ok(address) = wanted.trim_matches(['[', ']']).parse::<IpAddr>() {
        return names.iter().any(|name| name.parse() == Ok(address));
    }
    let wanted = wanted.trim_end_matches('.');
    names.iter().any(|name| {
        if name.eq_ignore_ascii_case(wanted) {
            return true;
        }
        match (name.strip_prefix("*."), wanted.split_once('.')) {
            (Some(parent), Some((label, rest))) => !label.is_empty() && parent.eq_ignore_ascii_case(rest),
            _ => false,
        }
    })
}

fn alternative_names(extension: &x509_parser::extensions::X509Extension<'_>) -> Option<Vec<String>> {
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return None;
    };
    Some(names.general_names.iter().filter_map(name_text).collect())
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_covered_by_itself_its_wildcard_and_its_address_only() {
        let names: Vec<String> = ["plant-7.local", "*.example.org", "192.168.10.2", "fe80::1"]
            .map(String::from)
            .to_vec();
        for covered in [
            "plant-7.local",
            "PLANT-7.local.",
            "a.example.org",
            "192.168.10.2",
            "[fe80::1]",
            "fe80:0::1",
        ] {
            assert!(name_is_covered(&names, covered), "{covered}");
        }
        for foreign in [
            "plant-8.local",
            "example.org",
            "a.b.example.org",
            ".example.org",
            "192.168.10.3",
            "",
        ] {
            assert!(!name_is_covered(&names, foreign), "{foreign}");
        }
    }
}
