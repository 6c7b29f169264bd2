//! Ordinary clients are served as AWS IoT Core serves them.

mod support;

use forebay_aws_standin::{
    Standin, StandinConfig, Version,
    certificates::{Authority, ENDPOINT},
};
use rumqttc::{Packet, v5};
use support::{DEADLINE, client_v4, client_v5, plain, tls_standin, until_v4, until_v5};

#[tokio::test]
async fn a_publish_of_each_version_is_committed_before_its_ack() {
    let cloud = plain().await;
    let (client, mut events) = client_v4(cloud.address(), "four");
    client
        .publish("dt/a", rumqttc::QoS::AtLeastOnce, false, r#"{"device":"a","seq":1}"#)
        .await
        .unwrap();
    until_v4(&mut events, |packet| matches!(packet, Packet::PubAck(_))).await;
    assert_eq!(cloud.ledger().count(), 1);

    let (client, mut events) = client_v5(cloud.address(), "five");
    let v5::Incoming::ConnAck(connack) = until_v5(&mut events, |packet| matches!(packet, v5::Incoming::ConnAck(_))).await else {
        panic!("no CONNACK");
    };
    let properties = connack.properties.unwrap();
    assert_eq!(
        (
            properties.receive_max,
            properties.max_qos,
            properties.max_packet_size,
            properties.topic_alias_max
        ),
        (Some(100), Some(1), Some(149_504), Some(8))
    );
    assert_eq!(
        (properties.server_keep_alive, properties.subscription_identifiers_available),
        (Some(30), Some(0))
    );
    let with_id = v5::mqttbytes::v5::PublishProperties {
        user_properties: vec![("forebay-id".into(), "g/1/default/7".into())],
        ..Default::default()
    };
    client
        .publish_with_properties("dt/b", v5::mqttbytes::QoS::AtLeastOnce, false, "payload", with_id)
        .await
        .unwrap();
    until_v5(&mut events, |packet| matches!(packet, v5::Incoming::PubAck(_))).await;

    let ledger = cloud.ledger();
    let entries = ledger.entries();
    assert_eq!(entries[1].forebay_id.as_deref(), Some("g/1/default/7"));
    assert_eq!(
        (entries[1].topic.as_str(), entries[1].packet_id, entries[1].order),
        ("dt/b", Some(1), 2)
    );
    assert!(ledger.contains(b"payload") && ledger.contains_key("a", 1));
    assert_eq!(ledger.payloads("dt/b"), ["payload"]);
    assert_eq!(
        cloud.connects().iter().map(|connect| connect.version).collect::<Vec<_>>(),
        [Version::V311, Version::V5]
    );
    assert_eq!(cloud.violations(), Vec::<String>::new());
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_subscriber_gets_what_is_published_and_what_came_while_it_was_away() {
    let cloud = plain().await;
    let persistent = |options: &mut v5::MqttOptions| {
        options.set_clean_start(false);
        let mut properties = v5::mqttbytes::v5::ConnectProperties::new();
        properties.session_expiry_interval = Some(60);
        options.set_connect_properties(properties);
    };
    let (subscriber, mut events) = support::client_v5_with(cloud.address(), "sub", persistent);
    subscriber.subscribe("cmd/+/x", v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
    until_v5(&mut events, |packet| matches!(packet, v5::Incoming::SubAck(_))).await;

    let (publisher, mut publisher_events) = client_v4(cloud.address(), "pub");
    publisher
        .publish("cmd/1/x", rumqttc::QoS::AtLeastOnce, false, "here")
        .await
        .unwrap();
    until_v4(&mut publisher_events, |packet| matches!(packet, Packet::PubAck(_))).await;
    let got = until_v5(&mut events, |packet| matches!(packet, v5::Incoming::Publish(_))).await;
    assert!(matches!(got, v5::Incoming::Publish(publish) if publish.payload == "here"));
    subscriber.disconnect().await.unwrap();
    support::until_error_v5(&mut events).await;

    publisher
        .publish("cmd/2/x", rumqttc::QoS::AtLeastOnce, false, "away")
        .await
        .unwrap();
    until_v4(&mut publisher_events, |packet| matches!(packet, Packet::PubAck(_))).await;
    let (_subscriber, mut events) = support::client_v5_with(cloud.address(), "sub", persistent);
    let connack = until_v5(&mut events, |packet| matches!(packet, v5::Incoming::ConnAck(_))).await;
    assert!(matches!(connack, v5::Incoming::ConnAck(connack) if connack.session_present));
    let got = until_v5(&mut events, |packet| matches!(packet, v5::Incoming::Publish(_))).await;
    assert!(matches!(got, v5::Incoming::Publish(publish) if publish.payload == "away"));
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn mutual_tls_with_the_endpoint_name_is_served() {
    let authority = Authority::new("authority").unwrap();
    let cloud = tls_standin(&authority).await;
    let tls = authority.client_tls(Some(&authority.client("gateway").unwrap())).unwrap();
    let mut client = support::tls_raw(cloud.address(), ENDPOINT, tls).await.unwrap();
    client.send(&support::connect(5, "tls", 30)).await;
    assert_eq!(client.packet().await.unwrap()[3], 0);
    client.publish("dt/a", b"over tls", 1, 1).await;
    client.expect_puback(1, 0).await;
    assert!(cloud.ledger().contains(b"over tls"));
    assert_eq!(cloud.refusals(), Vec::<String>::new());
}

#[tokio::test]
async fn a_client_without_certificate_or_with_a_foreign_one_or_with_a_wrong_name_is_refused() {
    let authority = Authority::new("authority").unwrap();
    let other = Authority::new("other").unwrap();
    let cloud = tls_standin(&authority).await;
    let good = authority.client_tls(Some(&authority.client("gateway").unwrap())).unwrap();
    let foreign = authority.client_tls(Some(&other.client("gateway").unwrap())).unwrap();
    for (case, name, tls) in [
        ("no certificate", "localhost", authority.client_tls(None).unwrap()),
        ("another authority's certificate", "localhost", foreign),
        ("no server name", "127.0.0.1", good.clone()),
        ("another server name", "elsewhere.example", good.clone()),
    ] {
        let refused = support::tls_connect(cloud.address(), name, tls).await;
        assert!(refused.is_err(), "{case} was let in");
    }
    assert_eq!(cloud.stats().connects, 0);
    assert_eq!(cloud.violations().len(), 2, "the two about names: {:?}", cloud.violations());
    assert!(support::tls_connect(cloud.address(), "localhost", good).await.is_ok());
}

#[tokio::test]
async fn a_restarted_standin_goes_on_with_its_ledger_on_the_same_port() {
    let cloud = plain().await;
    let (address, ledger) = (cloud.address(), cloud.ledger());
    let mut raw = support::Raw::connected(address, 4, "client").await;
    raw.publish("t", b"before", 1, 1).await;
    raw.expect_puback(1, 0).await;
    cloud.shutdown().await;
    assert_eq!(raw.packet().await, None);

    let config = StandinConfig {
        address,
        ledger: Some(ledger.clone()),
        ..StandinConfig::default()
    };
    let cloud = Standin::start(config).await.unwrap();
    let mut raw = support::Raw::connected(address, 4, "client").await;
    raw.publish("t", b"after", 0, 0).await;
    cloud.ledger().wait_for(DEADLINE, |ledger| ledger.contains(b"after")).await.unwrap();
    assert_eq!((ledger.count(), ledger.payloads("t").len()), (2, 2));
}
