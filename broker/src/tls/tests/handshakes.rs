//! Clients that speak TLS: who is let in, and what each refusal is called.

use rcgen::ExtendedKeyUsagePurpose;

use super::bench::{Authority, Client, Leaf, Listener, NOW, Outcome, Plan, VERSIONS, meet};
use crate::tls::{HandshakeFailure, HandshakeFault};

async fn met_by(listener: &Listener, leaf: Option<&Leaf>) -> Vec<(Outcome, String)> {
    let tls = listener.load().unwrap();
    let mut outcomes = Vec::new();
    for version in VERSIONS {
        let (outcome, told) = meet(
            &tls,
            &Client {
                version,
                leaf,
                trusts: &listener.ca.pem,
                dials: "plant-7.local",
            },
        )
        .await;
        outcomes.push((
            outcome,
            told.map_or_else(|error| error.to_string(), |read| String::from_utf8(read).unwrap()),
        ));
    }
    outcomes
}

/// The failure under each version, after checking that the client was told by this alert.
async fn refused(listener: &Listener, leaf: Option<&Leaf>, label: &str, alert: &str) -> Vec<HandshakeFailure> {
    let mut failures = Vec::new();
    for (outcome, told) in met_by(listener, leaf).await {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.fault.label(), label, "{failure}");
        assert_eq!(failure.sni.as_deref(), Some("plant-7.local"));
        assert!(told.contains(alert), "the client was told {told:?}");
        failures.push(failure);
    }
    failures
}

#[tokio::test]
async fn a_device_of_our_ca_is_let_in_and_named() {
    let listener = Listener::new();
    let leaf = listener.ca.issue(&Plan::device("board-7"));
    for ((outcome, told), version) in met_by(&listener, Some(&leaf)).await.into_iter().zip(["1.2", "1.3"]) {
        let accepted = outcome.unwrap();
        assert_eq!(accepted.version, version);
        assert_eq!(accepted.sni.as_deref(), Some("plant-7.local"));
        assert_eq!(accepted.peer_certificate.cn.as_deref(), Some("board-7"));
        assert_eq!(accepted.peer_certificate.serial, "07");
        assert_eq!(told, "hello");
    }
}

#[tokio::test]
async fn during_a_rotation_devices_of_both_cas_are_let_in() {
    let mut listener = Listener::new();
    let next = Authority::named("devices, next");
    listener.write("ca.pem", &format!("{}{}", listener.ca.pem, next.pem));
    listener.files.crl = Some(listener.write("crl.pem", &listener.ca.revoke(99)));
    for leaf in [listener.ca.issue(&Plan::device("old")), next.issue(&Plan::device("new"))] {
        for (outcome, _) in met_by(&listener, Some(&leaf)).await {
            outcome.unwrap();
        }
    }
}

#[tokio::test]
async fn no_certificate_is_refused_by_its_name() {
    let listener = Listener::new();
    // TLS 1.2 has no alert of its own for it: rustls sends a plain handshake_failure or certificate_required.
    for failure in refused(&listener, None, "no_certificate", "alert").await {
        assert_eq!(failure.presented, None);
        assert!(failure.to_string().contains("forebay certs device"), "{failure}");
    }
}

#[tokio::test]
async fn another_cas_device_is_refused_and_named() {
    let listener = Listener::new();
    let leaf = Authority::named("somebody else").issue(&Plan::device("board-9"));
    for failure in refused(&listener, Some(&leaf), "unknown_ca", "UnknownCA").await {
        let line = failure.to_string();
        assert!(
            line.contains("CN=board-9") && line.contains("CN=somebody else") && line.contains("client_ca"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_ca_made_anew_under_the_old_name_is_told_apart() {
    let listener = Listener::new();
    let leaf = Authority::named("devices").issue(&Plan::device("board-9"));
    refused(&listener, Some(&leaf), "old_ca", "alert").await;
}

#[tokio::test]
async fn an_expired_device_is_refused_with_both_dates() {
    let listener = Listener::new();
    let leaf = listener.ca.issue(&Plan {
        years: (2020, 2021),
        ..Plan::device("board-7")
    });
    for failure in refused(&listener, Some(&leaf), "expired", "Expired").await {
        let (not_after, judged) = ("2021-01-01T00:00:00Z".to_owned(), "2026-06-01T00:00:00Z".to_owned());
        assert_eq!(failure.fault, HandshakeFault::Expired { not_after, judged });
    }
}

#[tokio::test]
async fn a_device_from_the_future_is_refused_with_both_dates() {
    let listener = Listener::new();
    let leaf = listener.ca.issue(&Plan {
        years: (2027, 2030),
        ..Plan::device("board-7")
    });
    refused(&listener, Some(&leaf), "not_yet_valid", "alert").await;
}

#[tokio::test]
async fn a_clock_in_1970_refuses_nobody_because_our_own_certificate_proves_the_date() {
    let mut listener = Listener::new();
    listener.now = 0;
    let own = listener.ca.issue(&Plan {
        years: (2026, 2030),
        ..Plan::server(&["plant-7.local"])
    });
    listener.write("server.pem", &own.pem);
    listener.write("server.key", &own.key);
    let leaf = listener.ca.issue(&Plan {
        years: (2025, 2030),
        ..Plan::device("board-7")
    });
    let expired = listener.ca.issue(&Plan {
        years: (2020, 2025),
        ..Plan::device("board-8")
    });
    for (outcome, _) in met_by(&listener, Some(&leaf)).await {
        outcome.unwrap();
    }
    refused(&listener, Some(&expired), "expired", "Expired").await;
}

#[tokio::test]
async fn a_clock_that_is_not_trusted_refuses_no_device_that_may_be_valid_by_now() {
    // B2: whatever the wall clock shows, and whatever an older version left on disk: the time there lies beyond our own certificate.
    let mut listener = Listener::new();
    listener.is_unknown = true;
    let own = listener.ca.issue(&Plan {
        years: (2026, 2030),
        ..Plan::server(&["plant-7.local"])
    });
    listener.write("server.pem", &own.pem);
    listener.write("server.key", &own.key);
    let device = |years| {
        listener.ca.issue(&Plan {
            years,
            ..Plan::device("board-7")
        })
    };
    let (known, newer) = (device((2025, 2027)), device((2028, 2029)));
    let (expired, future) = (device((2020, 2025)), device((2031, 2035)));
    for on_disk in [0, NOW, 4_070_908_800] {
        listener.now = on_disk;
        for leaf in [&known, &newer] {
            for (outcome, _) in met_by(&listener, Some(leaf)).await {
                outcome.unwrap();
            }
        }
        refused(&listener, Some(&expired), "expired", "Expired").await;
        refused(&listener, Some(&future), "not_yet_valid", "alert").await;
    }
}

#[tokio::test]
async fn a_revoked_device_is_refused_even_by_a_list_past_its_date() {
    let mut listener = Listener::new();
    listener.files.crl = Some(listener.write("crl.pem", &listener.ca.revoke(7)));
    let revoked = listener.ca.issue(&Plan::device("board-7"));
    refused(&listener, Some(&revoked), "revoked", "Revoked").await;
    let other = listener.ca.issue(&Plan {
        serial: 8,
        ..Plan::device("board-8")
    });
    for (outcome, _) in met_by(&listener, Some(&other)).await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn a_servers_certificate_does_not_make_a_device() {
    let listener = Listener::new();
    let leaf = listener.ca.issue(&Plan {
        usage: ExtendedKeyUsagePurpose::ServerAuth,
        ..Plan::device("board-7")
    });
    refused(&listener, Some(&leaf), "wrong_purpose", "alert").await;
}

#[tokio::test]
async fn a_devices_certificate_does_not_make_a_ca() {
    let listener = Listener::new();
    let stolen = listener.ca.issue(&Plan::device("board-7"));
    let mut leaf = Authority::forged_by("board-7", &stolen).issue(&Plan::device("admin"));
    leaf.pem.push_str(&stolen.pem);
    for (outcome, _) in met_by(&listener, Some(&leaf)).await {
        let failure = outcome.unwrap_err();
        assert!(matches!(failure.fault.label(), "unknown_ca" | "bad_certificate"), "{failure}");
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_as_such() {
    let listener = Listener::new();
    let mut leaf = listener.ca.issue(&Plan::device("board-7"));
    leaf.key = listener.ca.issue(&Plan::device("board-8")).key;
    refused(&listener, Some(&leaf), "key_not_held", "alert").await;
}

#[tokio::test]
async fn a_peer_that_refuses_our_name_is_reported_with_the_name_it_connected_to_and_those_of_ours() {
    let listener = Listener::new();
    let tls = listener.load().unwrap();
    let leaf = listener.ca.issue(&Plan::device("board-7"));
    for version in VERSIONS {
        let client = Client {
            version,
            leaf: Some(&leaf),
            trusts: &listener.ca.pem,
            dials: "gateway.example",
        };
        let failure = meet(&tls, &client).await.0.unwrap_err();
        assert_eq!(failure.fault.label(), "refused_ours", "{failure}");
        let line = failure.to_string();
        for part in [
            "connected to gateway.example",
            "plant-7.local, 127.0.0.1",
            "certs server --name gateway.example",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
}

#[tokio::test]
async fn a_peer_that_does_not_trust_our_ca_is_told_from_one_that_dials_a_wrong_name() {
    let listener = Listener::new();
    let tls = listener.load().unwrap();
    let leaf = listener.ca.issue(&Plan::device("board-7"));
    let other = Authority::named("the device's idea of our CA");
    for version in VERSIONS {
        let by_name = Client {
            version,
            leaf: Some(&leaf),
            trusts: &other.pem,
            dials: "plant-7.local",
        };
        let failure = meet(&tls, &by_name).await.0.unwrap_err();
        assert_eq!(failure.fault, HandshakeFault::RefusedOurs { alert: "unknown_ca" });
        assert!(failure.to_string().contains("the name is right"), "{failure}");

        let by_address = Client {
            dials: "127.0.0.2",
            trusts: &listener.ca.pem,
            ..by_name
        };
        let failure = meet(&tls, &by_address).await.0.unwrap_err();
        assert_eq!((failure.fault.label(), failure.sni.as_deref()), ("refused_ours", None));
        assert!(failure.to_string().contains("it sent no name"), "{failure}");
    }
}
