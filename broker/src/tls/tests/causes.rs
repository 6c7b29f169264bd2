//! Certificates that people make with openssl, and what the gateway says is wrong with them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use tokio::net::TcpListener;

use super::bench::{Client, Leaf, Listener, Plan, VERSIONS, deadline, meet};
use crate::tls::{HandshakeFailure, accept};

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A listener judged by today, whose CA's key is in its folder for openssl.
fn listener() -> Listener {
    let mut listener = Listener::new();
    listener.now = forebay_wal::wall_clock().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
    listener.write("ca.key", &listener.ca.key_pem());
    let own = listener.ca.issue(&Plan {
        years: (2020, 2090),
        ..Plan::server(&["plant-7.local"])
    });
    listener.write("server.pem", &own.pem);
    listener.write("server.key", &own.key);
    listener
}

const EXTENSIONS: &str = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";

/// `device.pem` and `device.key`: a device's certificate with such a key, signed so, with these extensions; none makes version 1.
fn made(folder: &Path, key: &[&str], signed: &[&str], extensions: Option<&str>) {
    openssl(folder, &[&["genpkey", "-out", "device.key"], key].concat());
    openssl(
        folder,
        &["req", "-new", "-key", "device.key", "-subj", "/CN=board-7", "-out", "device.csr"],
    );
    let mut sign = vec![
        "x509",
        "-req",
        "-in",
        "device.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "7",
        "-days",
        "99",
    ];
    sign.extend(["-out", "device.pem"]);
    sign.extend(signed);
    if let Some(extensions) = extensions {
        std::fs::write(folder.join("device.ext"), extensions).unwrap();
        sign.extend(["-extfile", "device.ext"]);
    }
    openssl(folder, &sign);
}

/// What the listener says of openssl's own client with this certificate.
async fn met_by_openssl(listener: &Listener, more: &[&str]) -> HandshakeFailure {
    let tls = listener.load().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "plant-7.local"])
        .args(["-cert", "device.pem", "-key", "device.key"])
        .args(more)
        .current_dir(listener.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = socket.accept().await.unwrap();
    let failure = accept(stream, &tls, deadline()).await.unwrap_err();
    client.kill().ok();
    client.wait().unwrap();
    failure
}

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P521: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"];
const RSA_1024: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
const RSA_2048: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const WEAK: &[&str] = &["-cipher", "DEFAULT@SECLEVEL=0"];

#[tokio::test(flavor = "multi_thread")]
async fn d_each_certificate_that_cannot_be_used_is_told_by_its_true_cause() {
    let critical = format!("{EXTENSIONS}1.2.3.4.5=critical,ASN1:UTF8String:x\n");
    let ca = "basicConstraints=CA:TRUE\nextendedKeyUsage=clientAuth\n";
    type Row<'a> = (&'a [&'a str], &'a [&'a str], Option<&'a str>, &'a str, &'a str);
    let table: [Row<'_>; 8] = [
        (RSA_1024, &["-sha256"], Some(EXTENSIONS), "bad_certificate", "RSA of 1024 bits"),
        // On TLS 1.3 openssl sends none, because the kind is not asked for.
        (P521, &["-sha256"], Some(EXTENSIONS), "bad_certificate no_certificate", "P-521"),
        (
            &["-algorithm", "ED448"],
            &["-sha256"],
            Some(EXTENSIONS),
            "bad_certificate no_certificate",
            "Ed448",
        ),
        (P256, &["-sha256"], None, "bad_certificate", "version 1"),
        (RSA_2048, &["-sha256"], None, "bad_certificate", "version 1"),
        (P256, &["-sha256"], Some(ca), "bad_certificate", "CA:TRUE"),
        (P256, &["-sha1"], Some(EXTENSIONS), "bad_certificate", "SHA-1"),
        (
            P256,
            &["-sha256"],
            Some(&critical),
            "bad_certificate",
            "critical extension 1.2.3.4.5",
        ),
    ];
    let listener = listener();
    for (key, signed, extensions, labels, cause) in table {
        made(listener.folder.path(), key, signed, extensions);
        for version in ["-tls1_2", "-tls1_3"] {
            let failure = met_by_openssl(&listener, &[WEAK, &[version]].concat()).await;
            assert!(labels.contains(failure.fault.label()), "{key:?} {version}: {failure}");
            assert!(failure.to_string().contains(cause), "{key:?} {version}: {failure}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d_a_device_that_takes_only_servers_of_another_kind_of_key_is_told_apart() {
    let listener = listener();
    made(listener.folder.path(), RSA_2048, &["-sha256"], Some(EXTENSIONS));
    for only in [
        &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"][..],
        &["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"],
    ] {
        let failure = met_by_openssl(&listener, only).await;
        assert_eq!(failure.fault.label(), "incompatible");
        assert!(failure.to_string().contains("only servers with RSA keys"), "{failure}");
    }
}

fn client<'a>(listener: &'a Listener, leaf: &'a Leaf, at: usize) -> Client<'a> {
    Client {
        version: VERSIONS[at],
        leaf: Some(leaf),
        trusts: &listener.ca.pem,
        dials: "plant-7.local",
    }
}

#[tokio::test]
async fn d_an_expired_intermediate_is_named_and_not_the_device() {
    let listener = Listener::new();
    let below = listener.ca.below("plant 7", (2020, 2022));
    let leaf = below.issue(&Plan::device("board-7"));
    let leaf = Leaf {
        pem: leaf.pem + &below.pem,
        key: leaf.key,
    };
    let tls = listener.load().unwrap();
    for at in 0..VERSIONS.len() {
        let failure = meet(&tls, &client(&listener, &leaf, at)).await.0.unwrap_err();
        assert_eq!(failure.fault.label(), "expired");
        let line = failure.to_string();
        assert!(line.contains("the CA \"CN=plant 7\"") && line.contains("2022-01-01"), "{line}");
    }
}

#[tokio::test]
async fn d_our_own_expired_certificate_is_told_as_what_it_is() {
    let listener = Listener::new();
    let own = listener.ca.issue(&Plan {
        years: (2020, 2025),
        ..Plan::server(&["plant-7.local"])
    });
    listener.write("server.pem", &own.pem);
    listener.write("server.key", &own.key);
    let leaf = listener.ca.issue(&Plan::device("board-7"));
    let tls = listener.load().unwrap();
    for at in 0..VERSIONS.len() {
        let failure = meet(&tls, &client(&listener, &leaf, at)).await.0.unwrap_err();
        assert_eq!(failure.fault.label(), "refused_ours");
        let line = failure.to_string();
        assert!(
            line.contains("expired at 2025-01-01") && !line.contains("the name is right"),
            "{line}"
        );
    }
}

#[test]
fn d_a_revocation_list_of_version_1_is_named_itself() {
    let mut listener = listener();
    let folder = listener.folder.path();
    std::fs::write(folder.join("index.txt"), "").unwrap();
    let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=30\n";
    std::fs::write(folder.join("ca.cnf"), config).unwrap();
    openssl(
        folder,
        &[
            "ca", "-gencrl", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-out", "old.crl",
        ],
    );
    listener.files.crl = Some(folder.join("old.crl"));
    let error = listener.load().unwrap_err().to_string();
    assert!(
        error.contains("old.crl") && error.contains("version 1") && !error.contains("ca.pem"),
        "{error}"
    );
}
