//! The disk and the certificates.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, SerialNumber, date_time_ymd};

use super::super::Mount;
use super::{CheckOptions, ROOM, Severity, Space, check, config, found, run_with};
use crate::certs::make::{self, Terms};
use crate::config::{Config, Overrides, parse};

fn surviving(survive: &str, more: &str) -> Config {
    super::read(&format!(
        "gateway: {{id: plant-7, {survive}}}\nlisteners: [{{bind: 127.0.0.1:1884, identity: \"{{client_id}}\"}}]\ncloud: {{endpoint: 127.0.0.1}}\n{more}"
    ))
}

#[test]
fn an_outage_that_the_stream_does_not_hold_is_an_error_with_the_size_it_needs() {
    let report = check(&surviving("survive: {outage: 7d, rate: 40/s, size: 256B}", ""));
    let hint = found(
        &report,
        Severity::Error,
        "an outage of 7d at 40/s of 256B needs 9.1GiB (about 402B a record); `default`, the largest stream, has 1GiB: it is full after 18h and then drops the oldest",
    );
    assert_eq!(hint, "set its max_bytes to 10GiB or more, or lower gateway.survive");
    found(&report, Severity::Error, "gateway.max_disk is 4GiB");
}

#[test]
fn an_outage_that_fits_says_how_much_of_the_stream_it_takes() {
    let report = check(&surviving("survive: {outage: 1h, rate: 10/s, size: 100B}", ""));
    found(
        &report,
        Severity::Ok,
        "an outage of 1h at 10/s of 100B needs 8.4MiB of the 1GiB that `default` has",
    );
    assert!(!report.failed());
}

#[test]
fn records_that_expire_within_the_outage_are_told() {
    let report = check(&surviving("survive: {outage: 12h}", "streams: [{name: a, max_age: 1h}]\n"));
    found(&report, Severity::Warn, "records of `a` expire after 1h, within an outage of 12h");
}

#[test]
fn streams_that_together_exceed_the_disk_bound_are_told() {
    let report = check(&surviving("max_disk: 1GiB, survive: {outage: 1h}", ""));
    found(&report, Severity::Warn, "all streams at their bounds and the dead letters take");
}

#[test]
fn a_file_system_too_small_is_an_error_and_one_too_full_a_warning() {
    let config = config("");
    let with = |size: u64, free: u64| {
        run_with(
            &config,
            &CheckOptions::default(),
            forebay_wal::wall_clock(),
            Ok(&Space { size, free, ..ROOM }),
        )
    };
    assert_eq!(
        found(&with(1 << 30, 1 << 30), Severity::Error, "the file system of"),
        "put gateway.data_dir on a larger disk, or lower keep_free or gateway.survive"
    );
    assert_eq!(
        found(&with(8 << 30, 1 << 30), Severity::Warn, "the file system of"),
        "free space, or put gateway.data_dir on another disk"
    );
    found(&with(8 << 30, 4 << 30), Severity::Ok, "the file system of");
    let unknown = run_with(
        &config,
        &CheckOptions::default(),
        forebay_wal::wall_clock(),
        Err("x: Permission denied"),
    );
    found(&unknown, Severity::Error, "cannot be read: x: Permission denied");
}

#[test]
fn the_file_system_of_a_directory_that_does_not_exist_yet_is_its_parents() {
    let folder = tempfile::tempdir().unwrap();
    let there = Space::of(folder.path()).unwrap();
    assert!(there.size > 0 && there.free <= there.size);
    assert_eq!(Space::of(&folder.path().join("not/yet")).unwrap().size, there.size);
    assert!(Space::of(Path::new("data")).is_ok());
}

#[test]
fn what_is_written_per_day_is_told_with_what_waiting_saves() {
    let eager = check(&config(""));
    let hint = found(
        &eager,
        Severity::Ok,
        "at 40/s and commit_wait 0ms the gateway writes about 143.2 GB per day (records per commit: 1;",
    );
    assert!(hint.contains("commit_wait: 500ms would write 8.3 GB"), "{hint}");
    let card = run_with(
        &config(""),
        &CheckOptions::default(),
        forebay_wal::wall_clock(),
        Ok(&Space { flash_card: true, ..ROOM }),
    );
    found(&card, Severity::Warn, "; the disk is a flash card");
    let patient = check(&surviving("commit_wait: 500ms", ""));
    assert_eq!(
        found(
            &patient,
            Severity::Ok,
            "at 40/s and commit_wait 500ms the gateway writes about 8.3 GB per day (records per commit: 21;"
        ),
        ""
    );
}

/// A gateway with a TLS listener whose certificate is for `plant-7.local`.
fn with_certificates(folder: &Path, made: SystemTime, names: &str) -> Config {
    let terms = Terms {
        now: made,
        days: Some(90),
        force: false,
    };
    let certs = folder.join("certs");
    make::ca(&certs, &terms).unwrap();
    make::server(&certs, &["plant-7.local".to_owned()], &terms).unwrap();
    let text = format!("gateway: {{id: g}}\nlisteners: [{{bind: 0.0.0.0:8883, names: {names}}}]\n");
    parse(&text, folder, &Overrides::default()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn sound_certificates_are_ok_with_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let report = check(&with_certificates(folder.path(), forebay_wal::wall_clock(), "[plant-7.local]"));
    found(&report, Severity::Ok, "server.pem, valid until ");
    found(&report, Severity::Ok, "devices-ca.pem, valid until ");
    assert!(!report.failed(), "{report}");
}

#[test]
fn a_name_that_devices_dial_and_the_certificate_lacks_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let report = check(&with_certificates(
        folder.path(),
        forebay_wal::wall_clock(),
        "[plant-7.local, 192.168.10.2]",
    ));
    found(&report, Severity::Error, "192.168.10.2");
    let none = tempfile::tempdir().unwrap();
    found(
        &check(&with_certificates(none.path(), forebay_wal::wall_clock(), "[]")),
        Severity::Warn,
        "`names` is missing",
    );
}

#[test]
fn expired_certificates_and_foreign_keys_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let config = with_certificates(folder.path(), forebay_wal::wall_clock(), "[plant-7.local]");
    let later = forebay_wal::wall_clock() + Duration::from_secs(400 * 86_400);
    let report = run_with(&config, &CheckOptions::default(), later, Ok(&ROOM));
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Error && finding.text.contains("expired")),
        "{report}"
    );
    std::fs::copy(folder.path().join("certs/devices-ca.key"), folder.path().join("certs/server.key")).unwrap();
    found(&check(&config), Severity::Error, "does not belong to the first certificate");
}

#[test]
fn a_revocation_list_that_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("certs")).unwrap();
    std::fs::write(folder.path().join("certs/devices.crl"), "nothing").unwrap();
    let report = check(&with_certificates(folder.path(), forebay_wal::wall_clock(), "[plant-7.local]"));
    let hint = found(&report, Severity::Error, "devices.crl");
    assert_eq!(hint, "without it the listener does not start");
}

/// It was told to be in force, and nothing said that what was revoked since is let in.
#[test]
fn d_a_revocation_list_past_its_date_is_told_with_what_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    with_certificates(folder.path(), forebay_wal::wall_clock(), "[plant-7.local]");
    let certs = folder.path().join("certs");
    let read = |name: &str| std::fs::read_to_string(certs.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("devices-ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("devices-ca.pem"), key).unwrap();
    for (year, severity, words) in [
        (2021, Severity::Warn, "was to be renewed by 2021-05-04"),
        (2071, Severity::Ok, "devices.crl is used"),
    ] {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 5, 4),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(certs.join("devices.crl"), list.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
        let yaml = "gateway: {id: g}\nlisteners: [{bind: 0.0.0.0:8883, names: [plant-7.local]}]\n";
        let config = parse(yaml, folder.path(), &Overrides::default()).unwrap_or_else(|error| panic!("{error}"));
        found(&check(&config), severity, words);
    }
}

#[test]
fn e19_a_directory_in_memory_or_in_a_containers_layer_is_an_error_and_so_is_one_that_cannot_be_written() {
    let with = |kind: &str, read_only, writable| {
        let mount = Some(Mount {
            kind: kind.to_owned(),
            read_only,
            options: Vec::new(),
        });
        let space = Space { mount, writable, ..ROOM };
        run_with(&config(""), &CheckOptions::default(), forebay_wal::wall_clock(), Ok(&space))
    };
    for kind in ["tmpfs", "ramfs", "overlay"] {
        found(&with(kind, false, true), Severity::Error, &format!("is on {kind}, "));
    }
    for kind in ["ext4", "xfs", "btrfs", "f2fs"] {
        assert!(!with(kind, false, true).failed(), "{kind}");
        found(&with(kind, true, false), Severity::Error, "is mounted read-only");
        found(&with(kind, false, false), Severity::Error, "this user may not write to");
    }
}

#[test]
fn b7_a_token_that_others_may_read_or_change_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("admin.token");
    std::fs::write(&token, "0123456789abcdef0123").unwrap();
    let text = "gateway: {id: g}\nlisteners: [{bind: 127.0.0.1:1883}]\nadmin: {token_file: admin.token}\n";
    for mode in 0o400..=0o777 {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        let is_wide = mode & 0o007 != 0 || mode & 0o020 != 0;
        let config = parse(
            text,
            folder.path(),
            &Overrides {
                skip_files: true,
                ..Overrides::default()
            },
        )
        .unwrap();
        let report = check(&config);
        if is_wide {
            let hint = found(&report, Severity::Warn, &format!("admin.token (mode {mode:03o})"));
            assert!(hint.starts_with("chmod 600 "), "{hint}");
        } else {
            found(&report, Severity::Ok, "is closed to other users");
        }
    }
}

#[test]
fn plain_listeners_are_told_and_warned_of_beyond_loopback() {
    let config = super::read("gateway: {id: g}\nlisteners: [{bind: 0.0.0.0:1883, insecure: true}, {bind: 127.0.0.1:1884}]\n");
    let report = check(&config);
    found(&report, Severity::Warn, "0.0.0.0:1883: plain TCP: any host on the network");
    found(&report, Severity::Ok, "127.0.0.1:1884: plain TCP, on loopback only");
}
