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
