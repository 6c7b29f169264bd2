//! `$SYS/broker/...`: who gets what the gateway tells of itself, and when.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use forebay_broker::codec::{Packet, ReasonCode, SubscribeOptions};
use support::{Bench, Client, Setup, connect_5, connect_311, publish, rule, within};

async fn watched() -> Bench {
    let rules = vec![
        rule("monitor", &["#", "$SYS/#"], &["#", "$SYS/#"], &["$SYS/broker/version"]),
        rule("*", &["#"], &["#"], &[]),
    ];
    Bench::start(Setup { rules, ..Setup::default() }).await
}

/// What comes before the answer to a PINGREQ, by topic; each with whether it has RETAIN.
async fn values(client: &mut Client) -> BTreeMap<String, (String, bool)> {
    client.send(&Packet::PingReq).await;
    let mut values = BTreeMap::new();
    loop {
        match client.receive().await {
            Some(Packet::Publish(message)) => {
                let value = String::from_utf8(message.payload.to_vec()).unwrap();
                let before = values.insert(message.topic.as_str().to_owned(), (value, message.retain));
                assert_eq!(before, None);
            }
            Some(Packet::PingResp) => return values,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_subscription_below_sys_gets_all_values_at_once_in_the_forms_of_mosquitto() {
    let bench = watched().await;
    let mut device = Client::connected(bench.address(), connect_5("d")).await;
    device.subscribe(1, "here/#").await;
    for number in 1..=3 {
        device.send(&publish("here/x", 1, Some(number))).await;
        device.expect_ack(number, ReasonCode::SUCCESS).await;
        device.message().await;
    }
    for connect in [connect_5("monitor"), connect_311("monitor")] {
        let mut monitor = Client::connected(bench.address(), connect).await;
        monitor.subscribe(1, "$SYS/#").await;
        let values = values(&mut monitor).await;
        assert!(values.values().all(|(_, retain)| *retain));
        assert_eq!(values.len(), 16 + 21, "{values:?}");
        let value = |name: &str| values[&format!("$SYS/broker/{name}")].0.clone();
        let number = |name: &str| value(name).parse::<u64>().unwrap();
        let uptime = value("uptime");
        assert!(uptime.strip_suffix(" seconds").unwrap().parse::<u64>().is_ok(), "{uptime}");
        assert_eq!(
            (number("clients/connected"), number("clients/total"), number("clients/disconnected")),
            (2, 2, 0)
        );
        assert_eq!(number("clients/maximum"), 2);
        assert_eq!((number("publish/messages/received"), number("publish/bytes/received")), (3, 3));
        assert!(number("publish/messages/sent") >= 3 && number("publish/messages/dropped") == 0);
        assert_eq!(number("subscriptions/count"), 2);
        assert!(number("messages/received") >= 4 && number("messages/sent") >= 7);
        assert!(number("bytes/received") > 30 && number("bytes/sent") > 30);
        assert_eq!(value("load/messages/received/1min"), "0.00");
        // The rules deny it this one.
        assert!(!values.contains_key("$SYS/broker/version"));
        drop(monitor);
        bench
            .until("it is gone", |view| {
                view.stats().connected.load(std::sync::atomic::Ordering::Relaxed) == 1
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_change_are_told_while_there_is_a_subscription_and_wildcards_do_not_match_them() {
    let bench = watched().await;
    let mut all = Client::connected(bench.address(), connect_5("all")).await;
    for filter in ["#", "+/broker/uptime", "+/#"] {
        all.subscribe(1, filter).await;
    }
    let codes = all
        .subscribe_with(2, &["$SYS/broker/uptime", "$share/g/$SYS/#"], SubscribeOptions::default(), None)
        .await;
    assert_eq!(codes, [ReasonCode::NOT_AUTHORIZED; 2], "only by a rule");
    let mut monitor = Client::connected(bench.address(), connect_5("monitor")).await;
    monitor.subscribe(1, "$SYS/broker/uptime").await;
    let first = monitor.message().await;
    let later = within("ten seconds", monitor.message()).await;
    assert!(first.retain && !later.retain);
    assert!(first.payload != later.payload);
    assert!(values(&mut all).await.is_empty());
    // Nothing of it is in the log, or retained.
    assert!(bench.records().await.is_empty());
    assert_eq!(bench.view.stats().retained.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_tells_the_gateways_values_whatever_its_rules() {
    let bench = watched().await;
    let mut monitor = Client::connected(bench.address(), connect_5("monitor")).await;
    for topic in ["$SYS/broker/uptime", "$SYS/broker/load/bytes/sent/1min"] {
        monitor.send(&publish(topic, 1, Some(1))).await;
        monitor.expect_ack(1, ReasonCode::NOT_AUTHORIZED).await;
    }
    // A Mosquitto that connects as a bridge tells its state here.
    monitor.send(&publish("$SYS/broker/connection/plant/state", 1, Some(2))).await;
    monitor.expect_ack(2, ReasonCode::SUCCESS).await;
}
