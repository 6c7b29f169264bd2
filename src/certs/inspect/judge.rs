//! Usage, time, names and strength of the certificates of a ladder.

use forebay_broker::tls::{Identity, certificate_names, name_is_covered, utc_text};
use x509_parser::oid_registry::{OID_PKCS1_MD5WITHRSAENC, OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::{X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

use super::{Problem, Usage, days, rung};

const SOON_DAYS: i64 = 30;
const MIN_RSA_BITS: usize = 2048;

/// Appends what is wrong with the certificates of `ladder` themselves.
pub(super) fn ladder(ladder: &[&X509Certificate<'_>], usage: Usage, names: &[String], now: i64, problems: &mut Vec<Problem>) {
    let authorities = match usage {
        Usage::Ca => ladder,
        Usage::Server | Usage::Client => ladder.get(1..).unwrap_or_default(),
    };
    if let (Usage::Server | Usage::Client, Some(leaf)) = (usage, ladder.first()) {
        problems.extend(leaf_usage(leaf, usage));
    }
    for (below, authority) in authorities.iter().enumerate() {
        problems.extend(authority_usage(authority, if usage == Usage::Ca { 0 } else { below }));
    }
    for certificate in ladder {
        problems.extend(validity(certificate, now));
    }
    problems.extend(outlived(ladder, usage));
    if let (Usage::Server, Some(leaf)) = (usage, ladder.first()) {
        leaf_names(leaf, names, problems);
    }
    if let (Usage::Client, Some(leaf)) = (usage, ladder.first()) {
        problems.extend(identity(leaf));
    }
    for certificate in ladder {
        problems.extend(weakness(certificate));
    }
}

fn leaf_usage(leaf: &X509Certificate<'_>, usage: Usage) -> Option<Problem> {
    let subject = leaf.subject();
    if leaf.version() != X509Version::V3 {
        let text =
            format!("\"{subject}\" is an X.509 version 1 certificate; TLS libraries refuse it: make a version 3 one (`forebay certs`)");
        return Some(Problem::serious("version", text));
    }
    if leaf.is_ca() {
        let text = format!("\"{subject}\" is a CA's certificate; a peer refuses it as a server's or a device's own: issue one for that");
        return Some(Problem::serious("ca_as_leaf", text));
    }
    let (wanted, command) = match usage {
        Usage::Server => ("serverAuth", "forebay certs server"),
        Usage::Client | Usage::Ca => ("clientAuth", "forebay certs device"),
    };
    if let Ok(Some(extended)) = leaf.extended_key_usage() {
        let extended = extended.value;
        let set = if usage == Usage::Server {
            extended.server_auth
        } else {
            extended.client_auth
        };
        if !set && !extended.any {
            let text = format!("\"{subject}\" is not for this use: its extended key usage lacks {wanted}; issue another by `{command}`");
            return Some(Problem::serious("usage", text));
        }
    }
    let may_sign = leaf.key_usage().ok().flatten().is_none_or(|usage| usage.value.digital_signature());
    let text =
        || format!("\"{subject}\" may not sign: its key usage lacks digitalSignature, which TLS 1.3 needs; issue another by `{command}`");
    (!may_sign).then(|| Problem::serious("usage", text()))
}

fn authority_usage(authority: &X509Certificate<'_>, below: usize) -> Option<Problem> {
    let subject = authority.subject();
    if !authority.is_ca() {
        let text = format!(
            "\"{subject}\" is not a CA's certificate (no CA:TRUE); nothing it signs is accepted, and it must not be trusted as one"
        );
        return Some(Problem::serious("not_a_ca", text));
    }
    let may_sign = authority.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    if !may_sign {
        let text = format!("\"{subject}\" may not sign certificates: its key usage lacks keyCertSign; make the CA anew");
        return Some(Problem::serious("usage", text));
    }
    let limit = authority
        .basic_constraints()
        .ok()
        .flatten()
        .and_then(|constraints| constraints.value.path_len_constraint)?;
    let text = || format!("\"{subject}\" allows {limit} CAs below it and the chain has {below}; issue from it directly");
    (below as u64 > u64::from(limit)).then(|| Problem::serious("path_length", text()))
}

fn validity(certificate: &X509Certificate<'_>, now: i64) -> Option<Problem> {
    let (subject, validity) = (certificate.subject(), certificate.validity());
    let (start, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now > end {
        let text = format!(
            "\"{subject}\" expired at {}, {} days ago; make a new one",
            utc_text(end),
            days(now - end)
        );
        return Some(Problem::serious("expired", text));
    }
    if now < start {
        let text = format!(
            "\"{subject}\" is valid only from {}, and it is {}; set the clock, or make one with an earlier start",
            utc_text(start),
            utc_text(now)
        );
        return Some(Problem::serious("not_yet_valid", text));
    }
    let left = days(end - now);
    let text = || format!("\"{subject}\" expires at {}, in {left} days; make the next one now", utc_text(end));
    (left < SOON_DAYS).then(|| Problem::warning("expires_soon", text()))
}

fn outlived(ladder: &[&X509Certificate<'_>], usage: Usage) -> Option<Problem> {
    let end = |certificate: &X509Certificate<'_>| certificate.validity().not_after.timestamp();
    if usage == Usage::Ca {
        return None;
    }
    let step = ladder.windows(2).find(|step| end(step[1]) < end(step[0]))?;
    let (lower, upper) = (step[0].subject(), step[1].subject());
    let text = format!(
        "\"{upper}\" ends at {}, before \"{lower}\" that it signed; plan the CA's rotation by that date",
        utc_text(end(step[1]))
    );
    Some(Problem::warning("ca_ends_first", text))
}

fn leaf_names(leaf: &X509Certificate<'_>, names: &[String], problems: &mut Vec<Problem>) {
    let own = certificate_names(leaf.as_raw());
    if own.is_empty() {
        let text = format!(
            "\"{}\" has no subject alternative name, and clients do not look at the common name; issue another by `forebay certs server --name ...`",
            leaf.subject()
        );
        problems.push(Problem::serious("no_names", text));
        return;
    }
    let missing: Vec<&str> = names
        .iter()
        .filter(|name| !name_is_covered(&own, name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let flags: Vec<String> = names.iter().map(|name| format!("--name {name}")).collect();
        let text = format!(
            "devices that dial {} will refuse the certificate, which is for {}; make one by `forebay certs server {} --force`",
            missing.join(", "),
            own.join(", "),
            flags.join(" ")
        );
        problems.push(Problem::serious("names", text));
    }
}

fn identity(leaf: &X509Certificate<'_>) -> Option<Problem> {
    let name = leaf.subject().iter_common_name().next()?.as_str().ok()?;
    let error = Identity::new(name).err()?;
    Some(Problem::warning(
        "identity",
        format!("its common name cannot be an identity: {error}"),
    ))
}

fn weakness(certificate: &X509Certificate<'_>) -> Option<Problem> {
    let subject = certificate.subject();
    if let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed()
        && key.key_size() < MIN_RSA_BITS
    {
        let text = format!(
            "\"{subject}\" has an RSA key of {} bits, and {MIN_RSA_BITS} is the least accepted; use ECDSA P-256",
            key.key_size()
        );
        return Some(Problem::serious("weak_key", text));
    }
    let kind = rung::key_text(certificate);
    if kind.contains("unknown") || kind.contains("P-521") {
        let text = format!("\"{subject}\" has a key that Forebay does not accept ({kind}); use ECDSA P-256");
        return Some(Problem::serious("unsupported_key", text));
    }
    let signature = &certificate.signature_algorithm.algorithm;
    let weak = [OID_PKCS1_SHA1WITHRSA, OID_PKCS1_MD5WITHRSAENC, OID_SHA1_WITH_RSA].contains(signature);
    let self_signed = certificate.subject() == certificate.issuer();
    let text = || format!("\"{subject}\" is signed with SHA-1 or MD5, which peers refuse; issue it anew with SHA-256");
    (weak && !self_signed).then(|| Problem::serious("weak_signature", text()))
}
