//! What a listener's files can be wrong in, each with its own error.

use super::bench::{Authority, Listener, Plan};
use crate::tls::TlsError;

fn error_after(change: impl FnOnce(&mut Listener)) -> TlsError {
    let mut listener = Listener::new();
    change(&mut listener);
    listener.load().unwrap_err()
}

#[test]
fn good_files_load_and_tell_their_names_and_end() {
    let tls = Listener::new().load().unwrap();
    assert_eq!(tls.names().as_ref(), ["plant-7.local", "127.0.0.1"]);
    assert_eq!(tls.not_after(), 1_893_456_000);
    assert!(tls.overdue().is_empty());
}

#[test]
fn a_missing_file_is_named_with_its_role() {
    for name in ["server.pem", "server.key", "ca.pem"] {
        let error = error_after(|listener| std::fs::remove_file(listener.folder.path().join(name)).unwrap());
        assert!(matches!(&error, TlsError::Missing { path, .. } if path.ends_with(name)), "{error}");
        assert!(error.to_string().contains("forebay certs"), "{error}");
    }
    let error = error_after(|listener| listener.files.crl = Some(listener.folder.path().join("none.crl")));
    assert!(
        matches!(
            error,
            TlsError::Missing {
                role: "the revocation list",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_directory_in_place_of_a_file_is_unreadable() {
    let error = error_after(|listener| listener.files.key = listener.folder.path().to_owned());
    assert!(matches!(error, TlsError::Unreadable { .. }), "{error}");
}

#[test]
fn a_file_without_the_block_says_what_it_found() {
    let error = error_after(|listener| {
        listener.write(
            "server.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
    });
    assert!(
        matches!(&error, TlsError::NoPem { found, .. } if found == "ENCRYPTED PRIVATE KEY"),
        "{error}"
    );
    let error = error_after(|listener| {
        listener.write("ca.pem", "nothing");
    });
    assert!(error.to_string().contains("no PEM block at all"), "{error}");
}

#[test]
fn a_damaged_block_is_malformed() {
    for damaged in [
        "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let error = error_after(|listener| {
            listener.write("ca.pem", damaged);
        });
        assert!(matches!(error, TlsError::Malformed { .. }), "{error}");
    }
}

#[test]
fn an_oversized_file_is_refused_unread() {
    let error = error_after(|listener| {
        listener.write("ca.pem", &" ".repeat(1024 * 1024 + 1));
    });
    assert!(matches!(error, TlsError::TooLarge { limit: 1_048_576, .. }), "{error}");
}

#[test]
fn another_certificates_key_is_named_with_both_files() {
    let error = error_after(|listener| {
        let other = listener.ca.issue(&Plan::server(&["x"]));
        listener.write("server.key", &other.key);
    });
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
}

#[test]
fn a_leaf_among_the_device_cas_is_refused() {
    let error = error_after(|listener| {
        let leaf = listener.ca.issue(&Plan::device("board-7"));
        listener.write("ca.pem", &format!("{}{}", listener.ca.pem, leaf.pem));
    });
    assert!(
        matches!(&error, TlsError::NotACa { subject, .. } if subject == "CN=board-7"),
        "{error}"
    );
}

#[test]
fn a_foreign_revocation_list_is_refused_because_it_would_revoke_nothing() {
    for name in ["somebody else", "devices"] {
        let error = error_after(|listener| listener.files.crl = Some(listener.write("crl.pem", &Authority::named(name).revoke(7))));
        assert!(matches!(error, TlsError::ForeignCrl { .. }), "{error}");
    }
}

#[test]
fn an_expired_certificate_of_ours_is_loud_but_still_served() {
    let mut listener = Listener::new();
    listener.now = 1_900_000_000;
    let overdue = listener.load().unwrap().overdue();
    assert!(
        matches!(&overdue[..], [TlsError::Expired { path, .. }] if path.ends_with("server.pem")),
        "{overdue:?}"
    );
}

/// Ways in which a PEM file is damaged by hands, shells, forms and editors.
fn mangled(pem: &str) -> Vec<String> {
    let lines: Vec<&str> = pem.lines().collect();
    let mut found = vec![
        pem.replace('\n', ""),
        pem.replace('\n', " "),
        pem.replace('\n', "\\n"),
        pem.replace('\n', "\t"),
        pem.replacen('\n', "", 1),
        pem.replacen('\n', " ", 1),
        format!("\"{pem}\""),
        format!("key: {}", pem.replace('\n', "")),
        format!("\u{feff}{pem}"),
        pem.replace("-----", "----"),
        pem.replace("-----END", "----END"),
        pem.replace("PRIVATE KEY", "private key"),
        pem.replace("PRIVATE KEY-----\n", "PRIVATE KEY-----"),
        lines[..lines.len() - 1].join("\n"),
        lines[1..].join("\n"),
        pem.replace('A', "*"),
        format!("{}{}", pem.trim_end(), pem),
        pem.replace('\n', "") + "\n" + &pem.replace('\n', ""),
        pem.chars().flat_map(|c| [c, '\0']).collect(),
    ];
    // Each line break lost alone, and the file cut off anywhere.
    found.extend((1..lines.len()).map(|at| format!("{}{}", lines[..at].join("\n"), lines[at..].join("\n"))));
    found.extend((30..pem.len()).step_by(7).map(|end| pem[..end].to_owned()));
    found.extend((30..pem.len()).step_by(7).map(|end| pem[..end].replace('\n', "")));
    found
}

#[test]
fn b5_no_error_about_a_mangled_key_file_shows_any_of_the_key() {
    let mut listener = Listener::new();
    let key = std::fs::read_to_string(listener.folder.path().join("server.key")).unwrap();
    let secret: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let decimal = format!("{:?}", secret.as_bytes());
    let mut refused = 0;
    for text in mangled(&key) {
        for file in ["server.key", "server.pem", "ca.pem"] {
            listener = Listener::new();
            listener.write(file, &text);
            let Err(error) = listener.load() else { continue };
            refused += 1;
            let mut said = format!("{error} {error:?}");
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                said.push_str(&format!(" {inner} {inner:?}"));
                source = inner.source();
            }
            let shown = |part: &[u8]| said.contains(std::str::from_utf8(part).unwrap());
            assert!(!secret.as_bytes().windows(8).any(shown), "{file} {text:?}: {said}");
            assert!(!decimal.as_bytes().windows(12).any(shown), "{file} {text:?}: {said}");
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn b5_a_key_file_that_lost_its_line_breaks_is_told_so() {
    let error = error_after(|listener| {
        let key = std::fs::read_to_string(listener.folder.path().join("server.key")).unwrap();
        listener.write("server.key", &key.replace('\n', ""));
    });
    assert!(error.to_string().contains("line breaks are missing"), "{error}");
}
