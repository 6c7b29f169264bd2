//! Who and what is refused: each with its answer or close, a log line that says what to do, and a counter.
#![allow(clippy::unwrap_used)]

mod support;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_broker::codec::{Packet, QoS, ReasonCode, Version};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use support::device::{Device, NotConnected, publish};
use support::gateway::Gateway;
use support::plant::{Plant, client_tls};
use support::scene::Scene;
use support::{DEADLINE, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const BOARD: &str = "board-1";
const TOPIC: &str = "devices/board-1/telemetry";
const MAX_PACKET: usize = 4096;
const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

const HANDSHAKES: &str = "forebay_handshake_faults_total";
const DISCONNECTS: &str = "forebay_disconnects_total";
const REFUSED: &str = "forebay_refused_total";

/// A gateway with a TLS listener, a loopback one, and no cloud.
async fn gateway(plant: &Plant) -> Gateway {
    let mut gateway = Scene::new("refused")
        .tls_listener(plant)
        .listener("identity: \"{client_id}\"")
        .set("limits", "max_packet", format!("{MAX_PACKET}B"))
        .set("limits", "connect_timeout", "6s")
        .route("from: \"devices/#\", to: \"{topic}\", stream: telemetry")
        .cloud_on(1)
        .gateway();
    gateway.start().await;
    gateway
}

/// A counter that must rise by at least one, and a log line that must say all of these.
async fn is_told(gateway: &Gateway, counter: &str, label: &str, words: &[&str]) {
    let label = format!("reason=\"{label}\"");
    eventually(&format!("{counter}{{{label}}} rises"), || async {
        (gateway.metric(counter, &[&label]).await >= 1.0).then_some(())
    })
    .await;
    gateway.logs(&[&["WARN"], words].concat()).await;
}

/// Others are served as ever.
async fn serves_others(gateway: &Gateway, plant: &Plant) {
    let mut device = Device::connect_tls(gateway.listeners[0], "localhost", &plant.device(BOARD), "other", Version::V5)
        .await
        .expect("others connect");
    device.publish(TOPIC, b"{}", QoS::AtLeastOnce, 1, false).await.unwrap();
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
}

/// The handshake fails, at whatever point this TLS version learns of it.
async fn is_refused(gateway: &Gateway, name: &str, tls: &Arc<ClientConfig>) {
    match Device::connect_tls(gateway.listeners[0], name, tls, BOARD, Version::V5).await {
        Err(NotConnected::Unreachable(_) | NotConnected::Closed) => {}
        Err(NotConnected::Refused(code)) => panic!("a CONNACK came: {code}"),
        Ok(_) => panic!("the device was let in"),
    }
}

/// A client certificate signed by the plant's CA, as `change` wants it.
fn issued(plant: &Plant, stem: &str, change: impl FnOnce(&mut CertificateParams)) -> Arc<ClientConfig> {
    let read = |name: &str| std::fs::read_to_string(plant.folder().join(name)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("devices-ca.pem"), KeyPair::from_pem(&read("devices-ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    change(&mut params);
    assert!(!matches!(params.is_ca, IsCa::Ca(BasicConstraints::Unconstrained)));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let (certificate_path, key_path) = (
        plant.folder().join(format!("{stem}.pem")),
        plant.folder().join(format!("{stem}.key")),
    );
    std::fs::write(&certificate_path, certificate.pem()).unwrap();
    std::fs::write(&key_path, key.serialize_pem()).unwrap();
    client_tls(&plant.folder().join("devices-ca.pem"), Some((certificate_path, key_path)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_certificate_is_told_how_to_get_one() {
    let plant = Plant::new(&[BOARD]);
    let gateway = gateway(&plant).await;
    is_refused(&gateway, "localhost", &plant.stranger()).await;
    is_told(
        &gateway,
        HANDSHAKES,
        "no_certificate",
        &["presented no certificate", "forebay certs device", "peer=127.0.0.1"],
    )
    .await;
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_is_refused_by_its_names() {
    let (plant, other) = (Plant::new(&[BOARD]), Plant::new(&["intruder"]));
    // A CA made under another name is unknown; one under our CA's name has the wrong key.
    let foreign = {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, BOARD);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key).unwrap();
        let paths = (plant.folder().join("foreign.pem"), plant.folder().join("foreign.key"));
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        client_tls(&plant.folder().join("devices-ca.pem"), Some(paths))
    };
    let twin = client_tls(
        &plant.folder().join("devices-ca.pem"),
        Some((other.folder().join("intruder.pem"), other.folder().join("intruder.key"))),
    );
    let gateway = gateway(&plant).await;
    is_refused(&gateway, "localhost", &foreign).await;
    is_told(
        &gateway,
        HANDSHAKES,
        "unknown_ca",
        &["not from a CA in this listener's `client_ca`", BOARD],
    )
    .await;
    is_refused(&gateway, "localhost", &twin).await;
    let labels = ["unknown_ca", "old_ca"].map(|label| format!("reason=\"{label}\""));
    eventually("the second is counted too", || async {
        let counted = gateway.metric(HANDSHAKES, &[&labels[0]]).await + gateway.metric(HANDSHAKES, &[&labels[1]]).await;
        (counted >= 2.0).then_some(())
    })
    .await;
    gateway.logs(&["WARN", "intruder"]).await;
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused_with_its_date() {
    let plant = Plant::new(&[BOARD]);
    let expired = issued(&plant, "expired", |params| {
        params.distinguished_name.push(DnType::CommonName, BOARD);
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(2020, 1, 1));
    });
    let gateway = gateway(&plant).await;
    is_refused(&gateway, "localhost", &expired).await;
    is_told(
        &gateway,
        HANDSHAKES,
        "expired",
        &["expired at 2020-01-01", "issue a new one", BOARD],
    )
    .await;
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_a_wildcard_is_refused_at_connect() {
    let plant = Plant::new(&[BOARD]);
    let wildcard = issued(&plant, "wildcard", |params| params.distinguished_name.push(DnType::CommonName, "+"));
    let gateway = gateway(&plant).await;
    for version in VERSIONS {
        let refused = Device::connect_tls(gateway.listeners[0], "localhost", &wildcard, "a", version)
            .await
            .err();
        assert_eq!(refused, Some(NotConnected::Refused(ReasonCode::NOT_AUTHORIZED)), "{version:?}");
    }
    is_told(
        &gateway,
        DISCONNECTS,
        "bad_identity",
        &["\"+\"", "must be one topic level", "give the device another name"],
    )
    .await;
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_topic_outside_the_rules_is_answered_on_5_and_acked_and_dropped_on_311() {
    const FOREIGN: &str = "devices/board-2/telemetry";
    let plant = Plant::new(&[BOARD]);
    let gateway = gateway(&plant).await;
    let dial = async |version| {
        Device::connect_tls(gateway.listeners[0], "localhost", &plant.device(BOARD), "a", version)
            .await
            .unwrap()
    };

    let mut device = dial(Version::V5).await;
    device.publish(FOREIGN, b"{}", QoS::AtLeastOnce, 1, false).await.unwrap();
    assert_eq!(device.puback().await, Some(ReasonCode::NOT_AUTHORIZED));
    device.publish(FOREIGN, b"{}", QoS::ExactlyOnce, 2, false).await.unwrap();
    assert!(matches!(device.next().await, Some(Packet::PubRec(ack)) if ack.reason == ReasonCode::NOT_AUTHORIZED));
    device.publish(FOREIGN, b"{}", QoS::AtMostOnce, 0, false).await.unwrap();
    device.publish(TOPIC, b"{}", QoS::AtLeastOnce, 3, false).await.unwrap();
    assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS), "the connection stays");

    let mut device = dial(Version::V311).await;
    device.publish(FOREIGN, b"{}", QoS::AtLeastOnce, 1, false).await.unwrap();
    assert_eq!(
        device.puback().await,
        Some(ReasonCode::SUCCESS),
        "3.1.1 has no code: acked and dropped (MQTT-3.3.5-2)"
    );

    is_told(
        &gateway,
        REFUSED,
        "not_authorized",
        &[BOARD, FOREIGN, "no access rule", "`access` in the configuration"],
    )
    .await;
    assert_eq!(gateway.metric(REFUSED, &["not_authorized"]).await, 3.0);
    assert_eq!(
        gateway.metric("forebay_dropped_total", &["not_authorized"]).await,
        1.0,
        "QoS 0 is dropped and counted"
    );
    assert_eq!(gateway.waiting().await, 1, "nothing of it was stored");
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_over_the_limit_ends_its_connection_with_the_reason() {
    let plant = Plant::new(&[BOARD]);
    let gateway = gateway(&plant).await;
    for version in VERSIONS {
        let mut device = Device::connect_tls(gateway.listeners[0], "localhost", &plant.device(BOARD), "a", version)
            .await
            .unwrap();
        // As large as it may be, then one byte more.
        let overhead = 1 + 2 + 2 + TOPIC.len() + 2 + usize::from(version == Version::V5);
        device
            .publish(TOPIC, &vec![b'x'; MAX_PACKET - overhead], QoS::AtLeastOnce, 1, false)
            .await
            .unwrap();
        assert_eq!(
            device.puback().await,
            Some(ReasonCode::SUCCESS),
            "{version:?}: a packet of {MAX_PACKET} bytes is taken"
        );
        device
            .publish(TOPIC, &vec![b'x'; MAX_PACKET - overhead + 1], QoS::AtLeastOnce, 2, false)
            .await
            .unwrap();
        if version == Version::V5 {
            let last = device.next().await;
            assert!(
                matches!(&last, Some(Packet::Disconnect(end)) if end.reason == ReasonCode::PACKET_TOO_LARGE),
                "{last:?}"
            );
        }
        assert_eq!(device.next().await, None);
    }
    is_told(&gateway, DISCONNECTS, "packet_too_large", &[BOARD, "4096"]).await;
    assert_eq!(gateway.metric(DISCONNECTS, &["packet_too_large"]).await, 2.0);
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_peers_delay_no_other_and_are_closed_in_time() {
    silent_peers(48).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_silent_peers_delay_no_other() {
    silent_peers(200).await;
}

/// Half of them on each listener; one has sent half a ClientHello, which is not more than nothing.
async fn silent_peers(count: usize) {
    let plant = Plant::new(&[BOARD]);
    let gateway = gateway(&plant).await;
    let mut silent = Vec::new();
    for number in 0..count {
        silent.push(TcpStream::connect(gateway.listeners[number % 2]).await.unwrap());
    }
    silent[0].write_all(&[0x16, 3, 1, 1, 0]).await.unwrap();
    let began = Instant::now();
    for _ in 0..10 {
        serves_others(&gateway, &plant).await;
    }
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(5),
        "ten devices took {took:?} beside {count} silent peers"
    );
    // The places may all have gone to one listener's; the last to come keep theirs until their time is over.
    for listener in 0..2 {
        silent.push(TcpStream::connect(gateway.listeners[listener]).await.unwrap());
    }
    for mut stream in silent {
        // With or without a reset.
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut Vec::new()))
            .await
            .expect("a silent peer is closed in the end")
            .ok();
    }
    is_told(&gateway, HANDSHAKES, "timeout", &["did not finish in time", "look for"]).await;
    let plain = ["reason=\"connect_timeout\""];
    eventually("those on the plain listener are counted", || async {
        (gateway.metric(DISCONNECTS, &plain).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_mqtt_on_the_tls_port_is_named() {
    let plant = Plant::new(&[BOARD]);
    let gateway = gateway(&plant).await;
    for version in VERSIONS {
        let plain = TcpStream::connect(gateway.listeners[0]).await.unwrap();
        assert_eq!(Device::over(plain, BOARD, version, true).await.err(), Some(NotConnected::Closed));
    }
    is_told(
        &gateway,
        HANDSHAKES,
        "not_tls",
        &["does not speak TLS", "MQTT", "turn TLS on, or use the plain listener"],
    )
    .await;
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_tls_on_the_plain_port_is_named() {
    let plant = Plant::new(&[BOARD]);
    let gateway = gateway(&plant).await;
    let dialled = Device::connect_tls(gateway.listeners[1], "localhost", &plant.device(BOARD), BOARD, Version::V5).await;
    assert!(dialled.is_err());
    gateway
        .logs(&["it speaks TLS; this listener is plain", "turn TLS off in the device"])
        .await;
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_refuses_our_certificate_is_reported_with_the_name_it_connected_to() {
    let (plant, other) = (Plant::new(&[BOARD]), Plant::new(&[]));
    let gateway = gateway(&plant).await;
    is_refused(&gateway, "plant-7.example", &plant.device(BOARD)).await;
    is_told(
        &gateway,
        HANDSHAKES,
        "refused_ours",
        &[
            "connected to plant-7.example",
            "our certificate is for localhost",
            "forebay certs server --name plant-7.example",
        ],
    )
    .await;

    // The right name, and a device that does not know our CA.
    let wary = client_tls(
        &other.folder().join("devices-ca.pem"),
        Some((plant.folder().join("board-1.pem"), plant.folder().join("board-1.key"))),
    );
    is_refused(&gateway, "localhost", &wary).await;
    is_told(
        &gateway,
        HANDSHAKES,
        "refused_ours",
        &["connected to localhost", "the name is right", "give the peer the CA"],
    )
    .await;
    serves_others(&gateway, &plant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_mqtt_end_their_connection_and_no_other() {
    let plant = Plant::new(&[BOARD]);
    let gateway = gateway(&plant).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0x30, 0x02, 0x00, 0x00],
        &[0; 64],
    ] {
        let mut stream = TcpStream::connect(gateway.listeners[1]).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // Closed with or without a reset: both end it.
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer))
            .await
            .expect("the connection is closed")
            .ok();
    }
    // The same inside TLS.
    let stream = TcpStream::connect(gateway.listeners[0]).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(plant.device(BOARD)).connect(name, stream).await.unwrap();
    stream.write_all(&[0xf0; 32]).await.unwrap();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut Vec::new()))
        .await
        .expect("the connection is closed")
        .ok();
    eventually("they are counted", || async {
        (gateway.metric(DISCONNECTS, &["protocol_error"]).await >= 3.0).then_some(())
    })
    .await;

    // A packet that only a server sends, in the middle of a good connection.
    let mut device = Device::connect_tls(gateway.listeners[0], "localhost", &plant.device(BOARD), "a", Version::V5)
        .await
        .unwrap();
    device.send(&Packet::PingResp).await.unwrap();
    assert!(matches!(device.next().await, Some(Packet::Disconnect(_))));
    let unanswered = publish(TOPIC, b"{}", QoS::AtLeastOnce, NonZeroU16::MIN.get(), false, None);
    device.send(&unanswered).await;
    assert_eq!(device.next().await, None);
    serves_others(&gateway, &plant).await;
}
