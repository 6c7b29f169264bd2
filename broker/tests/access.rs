//! Access: what a device may publish, subscribe and leave as its will, and how its version is told.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use forebay_broker::codec::{Packet, ReasonCode, SubscribeOptions, Text, Unsubscribe, Will};
use forebay_broker::{Limits, Refusal};
use support::{Bench, Client, Setup, connect_5, connect_311, id, publish, rule, will};

const OK: ReasonCode = ReasonCode::SUCCESS;

async fn devices_only() -> Bench {
    let rules = vec![
        rule("watcher", &[], &["#"], &[]),
        rule(
            "*",
            &["devices/{device}/#", "cloud/{device}/#"],
            &["devices/{device}/#"],
            &["devices/{device}/factory/#"],
        ),
    ];
    Bench::start(Setup { rules, ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_outside_the_rules_is_refused_as_its_version_can_say() {
    let bench = devices_only().await;
    let mut watcher = Client::connected(bench.address(), connect_5("watcher")).await;
    watcher.subscribe(1, "#").await;

    let mut five = Client::connected(bench.address(), connect_5("d5")).await;
    for (qos, topic) in [(1, "cloud/d3/x"), (2, "devices/d5/factory/reset"), (1, "$SYS/x")] {
        five.send(&publish(topic, qos, Some(5))).await;
        five.expect_ack(5, ReasonCode::NOT_AUTHORIZED).await;
    }
    five.send(&publish("cloud/d3/x", 0, None)).await;
    five.ping().await;
    assert_eq!(bench.view.stats().refused(Refusal::NotAuthorized), 3);
    assert_eq!(bench.view.stats().dropped(Refusal::NotAuthorized), 1);

    let mut three = Client::connected(bench.address(), connect_311("d3")).await;
    three.send(&publish("cloud/d5/x", 0, None)).await;
    three.ping().await;
    assert_eq!(bench.view.stats().dropped(Refusal::NotAuthorized), 2);
    // It has no code for a refusal. If it closed, the client would send the same first after each reconnect (MQTT-3.3.5-2).
    for (packet_id, topic, qos) in [(1, "cloud/d5/x", 1), (2, "cloud/d5/x", 2), (3, "cloud/d3/x", 1)] {
        three.send(&publish(topic, qos, Some(packet_id))).await;
        three.expect_ack(packet_id, OK).await;
    }
    assert_eq!(bench.view.stats().refused(Refusal::NotAuthorized), 5);

    assert_eq!(watcher.text().await.0, "cloud/d3/x");
    watcher.ping().await;
    assert_eq!(bench.records().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_outside_the_rules_is_refused_at_connect() {
    let bench = devices_only().await;
    for start in [connect_5("d5"), connect_311("d3")] {
        let start = forebay_broker::codec::Connect {
            will: Some(will("cloud/other/x", 1, None)),
            ..start
        };
        let (mut refused, connack) = Client::connect(bench.address(), start).await;
        assert_eq!(connack.code, ReasonCode::NOT_AUTHORIZED);
        assert_eq!(refused.receive().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_gets_its_own_answer() {
    let bench = devices_only().await;
    let filters = [
        "devices/d/x",
        "devices/other/x",
        "a#",
        "$share/g/devices/d/x",
        "$share/g/devices/other/x",
        "$share/g/devices/d/factory/reset",
        "$share/+/devices/other/x",
        "$share/g",
        "$share//devices/d/x",
        "devices/d/factory/reset",
        "#",
    ];
    let expected = [
        OK,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::TOPIC_FILTER_INVALID,
        OK,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::TOPIC_FILTER_INVALID,
        ReasonCode::TOPIC_FILTER_INVALID,
        ReasonCode::TOPIC_FILTER_INVALID,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::NOT_AUTHORIZED,
    ];
    for (start, is_five) in [(connect_5("d"), true), (connect_311("d"), false)] {
        let mut device = Client::connected(bench.address(), start).await;
        let codes = device.subscribe_with(1, &filters, SubscribeOptions::default(), None).await;
        let on_311 = expected.map(|code| if code.is_error() { ReasonCode::UNSPECIFIED_ERROR } else { code });
        assert_eq!(codes, if is_five { expected } else { on_311 });
    }
    assert_eq!(bench.view.stats().subscriptions_refused.load(Ordering::Relaxed), 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_as_many_subscriptions_as_the_limit_and_one_more_in_place_of_another() {
    let limits = Limits {
        max_subscriptions: 100,
        ..Limits::default()
    };
    let bench = Bench::start(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    let filters: Vec<String> = (0..=100).map(|number| format!("devices/d/{number}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let codes = device.subscribe_with(1, &filters, SubscribeOptions::default(), None).await;
    assert!(codes[..100].iter().all(|code| *code == OK), "{codes:?}");
    assert_eq!(codes[100], ReasonCode::QUOTA_EXCEEDED);
    assert_eq!(bench.view.stats().subscriptions_refused.load(Ordering::Relaxed), 1);
    let again = device.subscribe_with(2, &filters[..1], SubscribeOptions::default(), None).await;
    assert_eq!(again, [OK], "it has that one");
    let unsubscribe = Unsubscribe {
        packet_id: id(3),
        user: Vec::new(),
        filters: vec![Text::from(filters[0].to_owned())],
    };
    device.send(&Packet::Unsubscribe(unsubscribe)).await;
    assert!(matches!(device.receive().await, Some(Packet::UnsubAck(_))));
    let codes = device.subscribe_with(4, &filters[100..], SubscribeOptions::default(), None).await;
    assert_eq!(codes, [OK]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_without_a_right_to_a_will_topic_still_connects_without_it() {
    let bench = devices_only().await;
    let allowed: Will = will("devices/d5/status", 1, None);
    let start = forebay_broker::codec::Connect {
        will: Some(allowed),
        ..connect_5("d5")
    };
    Client::connected(bench.address(), start).await.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_may_have_a_thousand_subscriptions_of_a_usual_length() {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    for hundred in 0..10 {
        let filters: Vec<String> = (0..100)
            .map(|number| format!("devices/line-7/machine-{hundred}{number:02}/telemetry/#"))
            .collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let codes = device.subscribe_with(1, &filters, SubscribeOptions::default(), None).await;
        assert!(codes.iter().all(|code| *code == OK), "{hundred}: {codes:?}");
    }
    let more = device.subscribe_with(2, &["one/more"], SubscribeOptions::default(), None).await;
    assert_eq!(more, [ReasonCode::QUOTA_EXCEEDED]);
}
