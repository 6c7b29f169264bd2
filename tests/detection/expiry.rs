//! Fault 11: a certificate and a revocation list come into use that expire within the warning time.

use std::time::Duration;

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, SerialNumber};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::judge::{Expected, Judge, Row};
use super::plants::Sites;
use super::support::plant::Plant;

/// The revocation list's file in the plant's folder.
pub(crate) const LIST: &str = "devices.crl";
/// Valid for so long that nobody is warned.
pub(crate) const LONG: Duration = Duration::from_secs(300 * 86_400);
/// Valid for three days.
const SHORT: Duration = Duration::from_secs(3 * 86_400);

/// Puts both into use by a restart, as an operator would who copied the wrong files, and the good ones after that.
pub(crate) async fn both(sites: &Sites, judge: &Judge) -> Vec<Row> {
    let plant = &sites.plant_that_expires;
    let mut site = sites.expiring.lock().await;
    let instance = site.instance();
    let expected = |fault, what: &str, file: &str| Expected {
        fault,
        alert: "ForebayExpiresSoon",
        labels: vec![("instance", instance.clone()), ("what", what.to_owned())],
        words: [file, "expiring", "expires in"].map(str::to_owned).to_vec(),
    };
    let certificate = expected("11a. A certificate expires within the warning time", "certificate", "server.pem");
    let list = expected("11b. A revocation list expires within the warning time", "crl", LIST);

    let caused = Instant::now();
    server(plant, "10");
    revocation_list(plant, SHORT);
    assert_eq!(site.gateway.stop().await, 0);
    site.gateway.start().await;
    let (first, second) = tokio::join!(judge.names(&certificate, caused), judge.names(&list, caused));

    let cured = Instant::now();
    server(plant, "400");
    revocation_list(plant, LONG);
    assert_eq!(site.gateway.stop().await, 0);
    site.gateway.start().await;
    let (first, second) = tokio::join!(judge.is_over(&certificate, first, cured), judge.is_over(&list, second, cured));
    // The page says where in a plant the files are, not where in this test.
    let folder = format!("{}/", plant.folder().display());
    let shown = |row: Row| Row {
        summary: row.summary.replace(&folder, "certs/"),
        ..row
    };
    vec![shown(first), shown(second)]
}

/// A server certificate that is valid for so many days.
pub(crate) fn server(plant: &Plant, days: &str) {
    plant.certs(&["server", "--name", "localhost", "--days", days, "--force"]);
}

/// A list of the plant's CA that revokes nothing that is in use.
pub(crate) fn revocation_list(plant: &Plant, valid: Duration) {
    let read = |name: &str| std::fs::read_to_string(plant.folder().join(name)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("devices-ca.pem"), KeyPair::from_pem(&read("devices-ca.key")).unwrap()).unwrap();
    let now = OffsetDateTime::now_utc();
    let list = CertificateRevocationListParams {
        this_update: now - Duration::from_secs(60),
        next_update: now + valid,
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).unwrap();
    std::fs::write(plant.folder().join(LIST), list.pem().unwrap()).unwrap();
}
