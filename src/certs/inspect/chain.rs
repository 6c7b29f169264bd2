//! Climbs from the leaf to its root by signatures, not by names.

use std::path::Path;

use x509_parser::error::X509Error;
use x509_parser::prelude::X509Certificate;

use super::Problem;

/// The ladder that starts with the first certificate of `file`; `authorities` are the CAs of the file `ca`.
pub(super) fn climb<'c, 'a>(
    file: &'c [X509Certificate<'a>],
    authorities: Option<&'c [X509Certificate<'a>]>,
    ca: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> Vec<&'c X509Certificate<'a>> {
    let Some(mut top) = file.first() else {
        return Vec::new();
    };
    if top.is_ca() && file.iter().any(|certificate| !certificate.is_ca()) {
        let text =
            "the file begins with a CA's certificate; put the server's or device's own certificate first, then its issuers".to_owned();
        problems.push(Problem::serious("order", text));
    }
    let mut ladder = vec![top];
    let mut used = vec![0];
    while !signed(top, top) {
        let Some(at) = (0..file.len()).find(|at| !used.contains(at) && signed(top, &file[*at])) else {
            break;
        };
        if at != used.len() && problems.iter().all(|problem| problem.label != "order") {
            let text = format!(
                "certificate {} of the file signs \"{}\" and should follow it; some devices do not sort certificates",
                at + 1,
                top.subject()
            );
            problems.push(Problem::warning("order", text));
        }
        used.push(at);
        top = &file[at];
        ladder.push(top);
    }
    for (at, stray) in file.iter().enumerate().filter(|(at, _)| !used.contains(at)) {
        let text = format!(
            "certificate {} of the file, \"{}\", signs nothing in it; remove it",
            at + 1,
            stray.subject()
        );
        problems.push(Problem::warning("stray", text));
    }
    match (authorities, ca) {
        (Some(authorities), Some(ca)) => root(top, &mut ladder, authorities, ca, problems),
        _ => broken_link(top, file.iter(), problems),
    }
    ladder
}

/// The last step: to a CA of the given file.
fn root<'c, 'a>(
    top: &'c X509Certificate<'a>,
    ladder: &mut Vec<&'c X509Certificate<'a>>,
    authorities: &'c [X509Certificate<'a>],
    ca: &Path,
    problems: &mut Vec<Problem>,
) {
    // A chain that brings its root along, or names a CA directly as its own, ends there.
    let anchored = |certificate: &X509Certificate<'_>| authorities.iter().any(|authority| authority.as_raw() == certificate.as_raw());
    if ladder.iter().any(|certificate| anchored(certificate)) {
        return;
    }
    if let Some(authority) = authorities.iter().find(|authority| signed(top, authority)) {
        ladder.push(authority);
        return;
    }
    let before = problems.len();
    broken_link(top, authorities.iter(), problems);
    if problems.len() == before {
        let known: Vec<String> = authorities.iter().map(|authority| authority.subject().to_string()).collect();
        let text = format!(
            "\"{}\" is signed by \"{}\", which is not in {} (there: {}); add that CA, or issue the certificate by one of those",
            top.subject(),
            top.issuer(),
            ca.display(),
            known.join("; ")
        );
        problems.push(Problem::serious("unknown_ca", text));
    }
}

/// Tells a CA of the right name and the wrong key from one that is simply not there.
fn broken_link<'c, 'a: 'c>(
    top: &X509Certificate<'a>,
    mut candidates: impl Iterator<Item = &'c X509Certificate<'a>>,
    problems: &mut Vec<Problem>,
) {
    let Some(candidate) = candidates.find(|candidate| candidate.subject() == top.issuer()) else {
        return;
    };
    match top.verify_signature(Some(candidate.public_key())) {
        Ok(()) => {}
        Err(X509Error::SignatureUnsupportedAlgorithm) => {
            let text = format!(
                "Forebay does not accept the signature algorithm of \"{}\"; use ECDSA P-256 with SHA-256",
                top.subject()
            );
            problems.push(Problem::serious("unsupported_signature", text));
        }
        Err(_) => {
            let text = format!(
                "\"{}\" names \"{}\" as its CA, but another key has signed it: that CA was probably replaced by one of the same name; issue the certificate again",
                top.subject(),
                top.issuer()
            );
            problems.push(Problem::serious("other_key", text));
        }
    }
}

fn signed(certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) -> bool {
    certificate.issuer() == by.subject() && certificate.verify_signature(Some(by.public_key())).is_ok()
}
