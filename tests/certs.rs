//! `forebay certs` from the outside: what it writes is judged by OpenSSL, not by us.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs `forebay certs --dir FOLDER ...`.
fn certs(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .arg("certs")
        .arg("--dir")
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = certs(folder, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        stdout(&output),
        String::from_utf8_lossy(&output.stderr)
    );
    stdout(&output)
}

#[track_caller]
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = certs(folder, arguments);
    assert!(!output.status.success(), "{arguments:?} was not refused: {}", stdout(&output));
    String::from_utf8(output.stderr).unwrap()
}

/// What OpenSSL prints; the test fails if it objects.
#[track_caller]
fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("openssl is needed for this test");
    let text = format!("{}{}", stdout(&output), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "openssl {arguments:?}: {text}");
    text
}

/// A CA, a server and two devices.
fn plant() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    done(folder.path(), &["ca"]);
    done(folder.path(), &["server", "--name", "plant-7.local", "--name", "192.168.10.2"]);
    done(folder.path(), &["device", "board-1", "board-2"]);
    folder
}

#[test]
fn openssl_accepts_every_certificate_for_its_purpose_and_for_no_other() {
    let plant = plant();
    let folder = plant.path();
    let verify = |purpose: &str, file: &str| {
        let arguments = ["verify", "-x509_strict", "-CAfile", "devices-ca.pem", "-purpose", purpose, file];
        Command::new("openssl")
            .current_dir(folder)
            .args(arguments)
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(verify("sslserver", "server.pem") && !verify("sslclient", "server.pem"));
    for device in ["board-1.pem", "board-2.pem"] {
        assert!(verify("sslclient", device) && !verify("sslserver", device));
    }
    openssl(
        folder,
        &[
            "verify",
            "-CAfile",
            "devices-ca.pem",
            "-verify_hostname",
            "plant-7.local",
            "server.pem",
        ],
    );
    openssl(
        folder,
        &["verify", "-CAfile", "devices-ca.pem", "-verify_ip", "192.168.10.2", "server.pem"],
    );
}

#[test]
fn certificates_hold_for_boards_that_boot_in_1970_and_for_the_promised_years() {
    let plant = plant();
    for (file, seconds) in [
        ("devices-ca.pem", "625000000"),
        ("server.pem", "157000000"),
        ("board-1.pem", "157000000"),
    ] {
        openssl(plant.path(), &["x509", "-in", file, "-noout", "-checkend", seconds]);
        openssl(plant.path(), &["verify", "-attime", "1", "-CAfile", "devices-ca.pem", file]);
    }
    let text = openssl(plant.path(), &["x509", "-in", "board-1.pem", "-noout", "-subject", "-text"]);
    for part in [
        "CN = board-1",
        "prime256v1",
        "ecdsa-with-SHA256",
        "TLS Web Client Authentication",
        "CA:FALSE",
    ] {
        assert!(text.replace("CN=board-1", "CN = board-1").contains(part), "{part}: {text}");
    }
}

#[test]
fn keys_belong_to_their_certificates_and_to_their_owner_alone() {
    let plant = plant();
    for stem in ["devices-ca", "server", "board-1"] {
        let key = format!("{stem}.key");
        let public = openssl(plant.path(), &["pkey", "-in", &key, "-pubout"]);
        assert_eq!(
            openssl(plant.path(), &["x509", "-in", &format!("{stem}.pem"), "-noout", "-pubkey"]),
            public
        );
        assert_eq!(fs::metadata(plant.path().join(key)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn nothing_is_overwritten_without_force() {
    let plant = plant();
    let files = [
        "devices-ca.pem",
        "devices-ca.key",
        "server.pem",
        "server.key",
        "board-1.pem",
        "board-1.key",
    ];
    let contents = || files.map(|file| fs::read(plant.path().join(file)).unwrap());
    let before = contents();
    for arguments in [&["ca"][..], &["server", "--name", "x"], &["device", "board-3", "board-1"]] {
        let text = refused(plant.path(), arguments);
        assert!(text.contains("--force"), "{text}");
    }
    assert_eq!(contents(), before);
    assert!(!plant.path().join("board-3.pem").exists());

    done(plant.path(), &["device", "board-1", "--force"]);
    assert_ne!(contents(), before);
    let left: Vec<_> = fs::read_dir(plant.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 8, "{left:?}");
}

#[test]
fn a_name_that_is_no_identity_is_refused_with_its_reason() {
    let plant = plant();
    for (name, part) in [
        ("a/b", "one topic level"),
        ("+", "one topic level"),
        ("server", "gateway's own"),
        ("..", "file name"),
    ] {
        let text = refused(plant.path(), &["device", name]);
        assert!(text.contains(part), "{name}: {text}");
    }
    let text = refused(plant.path(), &["server", "--name", "plant-7.local:8883", "--force"]);
    assert!(text.contains("without port"), "{text}");
}

#[test]
fn the_cloud_request_is_sound_and_its_commands_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let text = done(folder.path(), &["cloud", "--gateway", "plant-7"]);
    for part in [
        "create-certificate-from-csr",
        "create-policy --policy-name forebay-plant-7",
        "attach-policy",
        "describe-endpoint",
        "cloud.pem",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let request = openssl(folder.path(), &["req", "-in", "cloud.csr", "-noout", "-verify", "-subject"]);
    assert!(request.contains("plant-7") && request.contains("OK"), "{request}");
    assert_eq!(
        openssl(folder.path(), &["req", "-in", "cloud.csr", "-noout", "-pubkey"]),
        openssl(folder.path(), &["pkey", "-in", "cloud.key", "-pubout"])
    );
    let policy: serde_json::Value = serde_json::from_slice(&fs::read(folder.path().join("cloud-policy.json")).unwrap()).unwrap();
    assert_eq!(policy["Statement"][0]["Action"], "iot:Connect");
    refused(folder.path(), &["cloud", "--gateway", "plant-7"]);
}

#[test]
fn show_draws_the_ladder_and_finds_nothing_wrong() {
    let plant = plant();
    let path = |file: &str| plant.path().join(file).display().to_string();
    let text = done(
        plant.path(),
        &[
            "show",
            &path("server.pem"),
            "--ca",
            &path("devices-ca.pem"),
            "--names",
            "plant-7.local,192.168.10.2",
        ],
    );
    let (leaf, root) = (text.find("leaf").unwrap(), text.find("root").unwrap());
    assert!(
        leaf < root && text.contains("signed by") && text.contains("nothing wrong"),
        "{text}"
    );
    let fingerprint = openssl(plant.path(), &["x509", "-in", "server.pem", "-noout", "-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert!(text.contains(&fingerprint), "{fingerprint}: {text}");
}

#[test]
fn show_says_the_first_thing_wrong_in_plain_words_and_fails() {
    let (plant, other) = (plant(), plant());
    let path = |file: &str| plant.path().join(file).display().to_string();
    let foreign = other.path().join("devices-ca.pem").display().to_string();
    let output = certs(
        plant.path(),
        &["show", &path("server.pem"), "--ca", &foreign, "--names", "gw.example", "--json"],
    );
    assert_eq!(output.status.code(), Some(1));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown[0]["problems"][0]["label"], "unknown_ca");
    assert_eq!(shown[0]["problems"][1]["label"], "names");

    fs::copy(plant.path().join("board-1.key"), plant.path().join("server.key")).unwrap();
    let output = certs(plant.path(), &["show", &path("server.pem")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("wrong: the key"), "{}", stdout(&output));
}

#[test]
fn help_names_what_there_is_and_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let text = done(folder.path(), &["--help"]);
    for command in ["ca", "server", "device", "cloud", "show"] {
        assert!(text.contains(&format!("  {command} ")), "{text}");
        let help = done(folder.path(), &[command, "--help"]);
        assert!(
            help.contains("Example") && help.contains(&format!("forebay certs {command}")),
            "{help}"
        );
    }
    assert!(!text.contains("renew") && !text.contains("revoke"), "{text}");
}

/// Whatever is asked of it: a key whose line breaks were lost in a shell, a form or an editor is a fault that shows none of it.
#[test]
fn b5_a_key_that_lost_its_line_breaks_is_shown_by_no_command() {
    const CONFIG: &str = "gateway: {id: b5, data_dir: DIR/data}\n\
                          listeners: [{bind: \"127.0.0.1:0\", tls: {certificate: DIR/server.pem, key: DIR/server.key, client_ca: DIR/devices-ca.pem}, identity: \"{cn}\"}]\n\
                          cloud: {profile: mqtt, endpoint: localhost, port: 1, tls: {ca: DIR/devices-ca.pem, certificate: DIR/board-1.pem, key: DIR/board-1.key}}\n";
    let plant = plant();
    let folder = plant.path();
    let config = folder.join("forebay.yaml");
    fs::write(&config, CONFIG.replace("DIR", folder.to_str().unwrap())).unwrap();
    let keys = ["devices-ca.key", "server.key", "board-1.key"];
    let whole = keys.map(|file| fs::read_to_string(folder.join(file)).unwrap());
    let secrets = whole
        .each_ref()
        .map(|key| key.lines().filter(|line| !line.starts_with("-----")).collect::<String>());
    let manglings: [fn(&str) -> String; 5] = [
        |key| key.replace('\n', ""),
        |key| key.replace('\n', " "),
        |key| key.replace('\n', "\\n"),
        |key| key.replacen('\n', "", 1),
        |key| key.replace("-----END", "----END"),
    ];
    let stem = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let commands: [&[&str]; 5] = [
        &["certs", "show", &stem("board-1.pem")],
        &["certs", "--dir", folder.to_str().unwrap(), "device", "board-9"],
        &["certs", "show", &stem("board-1.key"), &stem("server.key")],
        &["check", "--config", config.to_str().unwrap()],
        &[
            "device",
            "--gateway",
            "localhost:1",
            "--certs",
            folder.to_str().unwrap(),
            "--for",
            "1ms",
            "board-1",
        ],
    ];
    let mut refused = 0;
    for mangle in manglings {
        for (file, key) in keys.iter().zip(&whole) {
            fs::write(folder.join(file), mangle(key)).unwrap();
        }
        for command in commands {
            let output = Command::new(env!("CARGO_BIN_EXE_forebay")).args(command).output().unwrap();
            let said = format!("{}{}", stdout(&output), String::from_utf8_lossy(&output.stderr));
            // Some readers do without the line breaks.
            refused += usize::from(!output.status.success());
            for secret in &secrets {
                let decimal = format!("{:?}", secret.as_bytes());
                let shows = |part: &[u8]| said.contains(std::str::from_utf8(part).unwrap());
                assert!(!secret.as_bytes().windows(8).any(shows), "{command:?}: {said}");
                assert!(!decimal.as_bytes().windows(16).any(shows), "{command:?}: {said}");
            }
        }
    }
    assert!(refused >= 20, "{refused}");
}
