//! One chain per fault, made on the spot.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};

use super::*;

/// A folder with files and the names of what was found wrong in them.
struct Desk {
    folder: tempfile::TempDir,
}

struct Maker {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Maker {
    fn root(name: &str) -> Self {
        let params = authority(name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn sign(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap().pem();
        Self { params, key, pem }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = leaf(name, ExtendedKeyUsagePurpose::Any, &[]);
    params.extended_key_usages.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf(name: &str, usage: ExtendedKeyUsagePurpose, names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params
}

fn server(names: &[&str]) -> CertificateParams {
    leaf("gateway", ExtendedKeyUsagePurpose::ServerAuth, names)
}

/// 2026-06-01.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_780_272_000)
}

impl Desk {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, parts: &[&str]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, parts.concat()).unwrap();
        path
    }

    fn server(&self, chain: &[&str], ca: &str) -> Inspection {
        let (chain, ca) = (self.file("chain.pem", chain), self.file("ca.pem", &[ca]));
        inspect(&chain, None, Some(&ca), Usage::Server, &["gw.local".into()], now())
    }
}

fn labels(inspection: &Inspection) -> Vec<&'static str> {
    inspection.problems.iter().map(|problem| problem.label).collect()
}

#[test]
fn a_whole_chain_has_nothing_wrong_and_stands_from_leaf_to_root() {
    let root = Maker::root("root");
    let middle = root.sign(authority("middle"));
    let own = middle.sign(server(&["gw.local", "10.0.0.1"]));
    let desk = Desk::new();
    let found = desk.server(&[&own.pem, &middle.pem], &root.pem);
    assert_eq!(found.problems, []);
    assert!(found.works());
    let subjects: Vec<&str> = found.ladder.iter().map(|rung| rung.subject.as_str()).collect();
    assert_eq!(subjects, ["CN=gateway", "CN=middle", "CN=root"]);
    assert_eq!(found.ladder[0].names, ["gw.local", "10.0.0.1"]);
    assert_eq!((found.ladder[0].key.as_str(), found.ladder[0].sha256.len()), ("ECDSA P-256", 64));
    // With its root in the file nothing else is needed, and the root is not shown twice.
    assert_eq!(desk.server(&[&own.pem, &middle.pem, &root.pem], &root.pem).ladder.len(), 3);
}

#[test]
fn links_are_found_by_signature_and_each_break_has_its_name() {
    let (root, twin, other) = (Maker::root("root"), Maker::root("root"), Maker::root("other"));
    let middle = root.sign(authority("middle"));
    let own = middle.sign(server(&["gw.local"]));
    let direct = root.sign(server(&["gw.local"]));
    let desk = Desk::new();
    assert_eq!(labels(&desk.server(&[&direct.pem], &other.pem)), ["unknown_ca"]);
    assert_eq!(labels(&desk.server(&[&own.pem], &root.pem)), ["unknown_ca"]);
    assert_eq!(labels(&desk.server(&[&direct.pem], &twin.pem)), ["other_key"]);
    assert_eq!(labels(&desk.server(&[&own.pem, &root.pem, &middle.pem], &root.pem)), ["order"]);
    assert_eq!(labels(&desk.server(&[&direct.pem, &other.pem], &root.pem)), ["stray"]);
    let reversed = desk.server(&[&middle.pem, &own.pem], &root.pem);
    assert_eq!(reversed.problems[0].label, "order");
    assert!(!reversed.works());
}

#[test]
fn a_certificate_for_another_use_is_refused() {
    let root = Maker::root("root");
    let device = root.sign(leaf("board-1", ExtendedKeyUsagePurpose::ClientAuth, &["gw.local"]));
    let desk = Desk::new();
    assert_eq!(labels(&desk.server(&[&device.pem], &root.pem)), ["usage"]);
    let path = desk.file("device.pem", &[&device.pem]);
    assert_eq!(labels(&inspect(&path, None, None, Usage::Client, &[], now())), Vec::<&str>::new());
    assert_eq!(likely_usage(&path), Usage::Client);
    assert_eq!(labels(&inspect(&path, None, None, Usage::Ca, &[], now())), ["not_a_ca"]);
    let bundle = desk.file("bundle.pem", &[&root.pem, &Maker::root("next").pem]);
    assert_eq!(likely_usage(&bundle), Usage::Ca);
    assert_eq!(labels(&inspect(&bundle, None, None, Usage::Ca, &[], now())), Vec::<&str>::new());
    let forged = device.sign(server(&["gw.local"]));
    assert_eq!(labels(&desk.server(&[&forged.pem, &device.pem], &root.pem)), ["not_a_ca"]);
    assert!(labels(&desk.server(&[&root.pem], &root.pem)).contains(&"ca_as_leaf"));
    let mut mute = server(&["gw.local"]);
    mute.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    assert_eq!(labels(&desk.server(&[&root.sign(mute).pem], &root.pem)), ["usage"]);
}

#[test]
fn a_ca_below_its_depth_is_refused() {
    let mut params = authority("root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let root = Maker {
        pem: params.self_signed(&key).unwrap().pem(),
        params,
        key,
    };
    let middle = root.sign(authority("middle"));
    let own = middle.sign(server(&["gw.local"]));
    assert_eq!(labels(&Desk::new().server(&[&own.pem, &middle.pem], &root.pem)), ["path_length"]);
}

#[test]
fn time_is_judged_at_both_ends_and_thirty_days_ahead() {
    let root = Maker::root("root");
    let own = root.sign(server(&["gw.local"]));
    let desk = Desk::new();
    let (chain, ca) = (desk.file("chain.pem", &[&own.pem]), desk.file("ca.pem", &[&root.pem]));
    let at = |seconds: u64| {
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        let found = inspect(&chain, None, Some(&ca), Usage::Server, &[], now);
        (found.problems.first().map(|problem| problem.label), found.works())
    };
    let end = 1_893_456_000;
    assert_eq!(at(0), (Some("not_yet_valid"), false));
    assert_eq!(at(end - 31 * 86_400), (None, true));
    assert_eq!(at(end - 29 * 86_400), (Some("expires_soon"), true));
    assert_eq!(at(end + 1), (Some("expired"), false));
    let mut long = server(&["gw.local"]);
    long.not_after = date_time_ymd(2031, 1, 1);
    assert_eq!(labels(&desk.server(&[&root.sign(long).pem], &root.pem)), ["ca_ends_first"]);
}

#[test]
fn names_that_devices_dial_must_be_covered() {
    let root = Maker::root("root");
    let desk = Desk::new();
    let found = desk.server(&[&root.sign(server(&["other.local"])).pem], &root.pem);
    assert_eq!(labels(&found), ["names"]);
    assert!(found.problems[0].text.contains("--name gw.local"), "{found:?}");
    assert_eq!(labels(&desk.server(&[&root.sign(server(&[])).pem], &root.pem)), ["no_names"]);
}

#[test]
fn a_device_whose_name_is_no_identity_is_pointed_out() {
    let desk = Desk::new();
    let device = Maker::root("root").sign(leaf("hall/7", ExtendedKeyUsagePurpose::ClientAuth, &[]));
    let found = inspect(&desk.file("d.pem", &[&device.pem]), None, None, Usage::Client, &[], now());
    assert_eq!((labels(&found), found.works()), (vec!["identity"], true));
}

#[test]
fn the_key_must_be_the_certificates_and_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let root = Maker::root("root");
    let (own, other) = (root.sign(server(&["gw.local"])), root.sign(server(&["gw.local"])));
    let desk = Desk::new();
    let chain = desk.file("chain.pem", &[&own.pem]);
    let with = |key: &str, mode: u32| {
        let path = desk.file("a.key", &[key]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        labels(&inspect(&chain, Some(&path), None, Usage::Server, &[], now()))
    };
    assert_eq!(with(&own.key.serialize_pem(), 0o600), Vec::<&str>::new());
    assert_eq!(with(&own.key.serialize_pem(), 0o644), ["key_open"]);
    assert_eq!(with(&other.key.serialize_pem(), 0o600), ["key_mismatch"]);
    assert_eq!(with("nothing", 0o600), ["no_key"]);
    let missing = desk.folder.path().join("none.key");
    assert_eq!(
        labels(&inspect(&chain, Some(&missing), None, Usage::Server, &[], now())),
        ["unreadable"]
    );
}

#[test]
fn files_that_hold_no_certificate_are_problems_and_not_panics() {
    let desk = Desk::new();
    let label = |content: &str| labels(&inspect(&desk.file("x.pem", &[content]), None, None, Usage::Server, &[], now()));
    assert_eq!(label(""), ["no_certificate"]);
    assert_eq!(label("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), ["damaged"]);
    assert_eq!(label("-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n"), ["damaged"]);
    let nowhere = inspect(&desk.folder.path().join("none.pem"), None, None, Usage::Ca, &[], now());
    assert_eq!((labels(&nowhere), nowhere.ladder.len()), (vec!["unreadable"], 0));
}
