//! The certificates of all listeners and of the cloud connection.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_broker::tls::{CertificateClock, ServerTls, TlsFiles, utc_text};

use crate::certs::inspect::{Inspection, Usage, crl_ends, inspect};
use crate::config::{CloudTls, Config, Listener, ListenerTls};

use super::report::{Report, Severity};

const AREA: &str = "certificates";

pub(super) fn check(config: &Config, now: SystemTime, report: &mut Report) {
    for listener in &config.listeners {
        match &listener.tls {
            Some(tls) => check_listener(listener, tls, now, report),
            None if listener.bind.ip().is_loopback() => report.ok(AREA, format!("{}: plain TCP, on loopback only", listener.bind)),
            None => report.warn(
                AREA,
                format!("{}: plain TCP: any host on the network can read and write", listener.bind),
                "give the listener `tls`",
            ),
        }
    }
    if let Some(cloud) = &config.cloud {
        match &cloud.tls {
            Some(tls) => check_cloud(tls, now, report),
            None => report.ok(AREA, format!("cloud {}: plain TCP", cloud.endpoint)),
        }
    }
}

fn check_listener(listener: &Listener, tls: &ListenerTls, now: SystemTime, report: &mut Report) {
    let place = listener.bind.to_string();
    let server = inspect(&tls.certificate, Some(&tls.key), None, Usage::Server, &listener.names, now);
    let authorities = inspect(&tls.client_ca, None, None, Usage::Ca, &[], now);
    let sound = server.works() && authorities.works();
    tell(&place, &tls.certificate, &server, report);
    tell(&place, &tls.client_ca, &authorities, report);
    if listener.names.is_empty() {
        let text = format!("{place}: `names` is missing, so the certificate's names cannot be checked");
        report.warn(AREA, text, "list under `names` the names and addresses that devices dial");
    }
    // The rest, revocation lists among it, is what the listener itself reads at its start.
    let files = TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
        crl: tls.crl.clone(),
    };
    match ServerTls::load(&files, &CertificateClock::fixed(now)) {
        Ok(_) => {
            if let Some(crl) = &tls.crl {
                check_list(&place, crl, now, report);
            }
        }
        Err(error) if sound => report.error(AREA, format!("{place}: {error}"), "without it the listener does not start"),
        Err(_) => {}
    }
}

/// What a list names stays revoked after its date; what was revoked since then is not in it.
fn check_list(place: &str, crl: &Path, now: SystemTime, report: &mut Report) {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(seconds).unwrap_or(i64::MAX);
    match crl_ends(crl).filter(|end| *end < now) {
        None => report.ok(AREA, format!("{place}: {} is used", crl.display())),
        Some(end) => report.warn(
            AREA,
            format!(
                "{place}: {} was to be renewed by {}; what it names stays revoked, and nothing later is known",
                crl.display(),
                utc_text(end)
            ),
            "let the CA make a new list, put it there and restart",
        ),
    }
}

fn check_cloud(tls: &CloudTls, now: SystemTime, report: &mut Report) {
    if let Some(identity) = &tls.identity {
        let found = inspect(&identity.certificate, Some(&identity.key), None, Usage::Client, &[], now);
        tell("cloud", &identity.certificate, &found, report);
    }
    if let Some(ca) = &tls.ca {
        tell("cloud", ca, &inspect(ca, None, None, Usage::Ca, &[], now), report);
    }
}

fn tell(place: &str, path: &Path, found: &Inspection, report: &mut Report) {
    for problem in &found.problems {
        let severity = if problem.serious { Severity::Error } else { Severity::Warn };
        report.add(severity, AREA, format!("{place}: {}", problem.text), None);
    }
    if found.problems.is_empty() {
        let until = found
            .ladder
            .first()
            .map(|leaf| format!(", valid until {}", leaf.not_after))
            .unwrap_or_default();
        report.ok(AREA, format!("{place}: {}{until}", path.display()));
    }
}
