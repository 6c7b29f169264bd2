//! What the cloud refuses: for now, for this device, or for ever.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use forebay_aws_standin::{Limits, StandinConfig, Switches, Undeliverable};
use forebay_bridge::{Canary, Version};
use support::Rig;

const BOTH: [Version; 2] = [Version::V5, Version::V311];

#[tokio::test]
async fn a_burst_of_quota_refusals_is_retried_and_keeps_each_devices_order() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.in_flight = 1;
    rig.start();
    rig.until("connected", |rig| rig.status().connected_since.is_some()).await;
    rig.cloud.faults().answer("dt/d1/*", 0x97, Some(3));
    for _ in 0..20 {
        rig.publish("d1", 1);
        rig.publish("d2", 1);
    }
    rig.drained().await;
    rig.assert_whole(40, 0);
    assert!(rig.handle().stats().refused().any(|refused| refused == (0x97, 3)));
    assert_eq!(rig.handle().stats().retried.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_device_that_is_refused_for_long_stops_no_other() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.read_ahead = 16 * 1024;
    rig.cloud.faults().answer("dt/d1/*", 0x97, None);
    rig.publish("d1", 300);
    rig.publish("d2", 10);
    rig.start();
    rig.until("the others are through", |rig| rig.first_arrivals("dt/d2/t").len() == 10)
        .await;
    rig.until("settled", |rig| rig.waiting() == 300).await;
    rig.cloud.faults().clear_answers();
    rig.drained().await;
    let report = rig.cloud.ledger().report();
    assert_eq!((report.unique, report.gaps, report.out_of_order), (310, 0, 0), "{report:?}");
}

#[tokio::test]
async fn a_denied_route_is_suspended_and_resumes_in_order_while_others_flow() {
    for version in BOTH {
        let mut rig = Rig::plain(version).await;
        rig.config.in_flight = 4;
        rig.cloud.faults().deny("dt/d1/*");
        rig.start();
        for _ in 0..15 {
            rig.publish("d1", 1);
            rig.publish("d2", 1);
        }
        rig.until("the others are through", |rig| {
            rig.first_arrivals("dt/d2/t").len() == 15 && rig.waiting() == 15
        })
        .await;
        rig.until("suspended", |rig| rig.status().suspended.len() == 1).await;
        let suspended = rig.status().suspended.remove(0);
        assert_eq!((suspended.stream.as_str(), suspended.identity.as_str()), ("telemetry", "d1"));
        rig.publish("d1", 5);
        rig.publish("d2", 5);
        rig.until("new ones too", |rig| {
            rig.first_arrivals("dt/d2/t").len() == 20 && rig.waiting() == 20
        })
        .await;
        rig.cloud.faults().allow("dt/d1/*");
        rig.drained().await;
        rig.until("resumed", |rig| rig.status().suspended.is_empty()).await;
        rig.publish("d1", 5);
        rig.drained().await;
        let report = rig.cloud.ledger().report();
        assert_eq!((report.unique, report.gaps, report.out_of_order), (45, 0, 0), "{report:?}");
        assert_eq!(
            rig.handle().stats().dead().map(|(_, count)| count).sum::<u64>(),
            0,
            "never a dead letter"
        );
    }
}

#[tokio::test]
async fn eight_denied_devices_suspend_the_route_and_all_of_it_resumes() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.cloud.faults().deny("dt/*");
    rig.start();
    (0..12).for_each(|device| rig.publish(&format!("d{device}"), 3));
    rig.until("the route", |rig| {
        rig.status().suspended_routes == ["telemetry"] && rig.status().suspended.len() == 12
    })
    .await;
    rig.append("alarms", "d1", "devices/d1/alarm", b"fire", |_| {});
    rig.until("other routes flow", |rig| rig.cloud.ledger().contains(b"fire")).await;
    rig.cloud.faults().allow("dt/*");
    rig.drained().await;
    rig.assert_whole(37, 0);
    rig.until("resumed", |rig| {
        rig.status().suspended.is_empty() && rig.status().suspended_routes.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_route_is_suspended_from_its_oldest_record_in_flight() {
    let mut rig = Rig::plain(Version::V5).await;
    // When the eighth device is denied, several records of the ninth are in flight and more of them wait.
    rig.config.in_flight = 9;
    rig.cloud.faults().deny("dt/*");
    (0..8).for_each(|device| rig.publish(&format!("d{device}"), 1));
    rig.publish("d8", 20);
    rig.start();
    rig.until("the route", |rig| {
        rig.status().suspended_routes == ["telemetry"] && rig.status().suspended.len() == 9 && rig.status().in_flight == 0
    })
    .await;
    rig.cloud.faults().allow("dt/*");
    rig.drained().await;
    rig.assert_whole(28, 0);
}

#[tokio::test]
async fn a_suspension_survives_a_restart_of_the_bridge() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.cloud.faults().deny("dt/d1/*");
    rig.start();
    rig.publish("d1", 3);
    rig.until("suspended", |rig| rig.status().suspended.len() == 1).await;
    rig.stop().await;
    rig.start();
    assert_eq!(rig.waiting(), 3);
    rig.until("known again", |rig| rig.status().suspended.len() == 1).await;
    rig.cloud.faults().allow("dt/d1/*");
    rig.drained().await;
    rig.assert_whole(3, 0);
}

#[tokio::test]
async fn poison_becomes_a_dead_letter_and_the_next_record_flows() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.cloud.faults().answer("dt/bad/*", 0x90, None);
    rig.start();
    rig.publish("d1", 3);
    rig.append("telemetry", "bad", "devices/bad/telemetry/t", b"x", |_| {});
    rig.append("telemetry", "d2", "devices/d2/telemetry/t", &vec![0; 131_073], |_| {});
    rig.append("telemetry", "d2", "devices/d2/telemetry/1/2/3/4/5/6/7", b"x", |_| {});
    rig.append("telemetry", "d2", "nowhere", b"x", |_| {});
    rig.publish("d1", 3);
    rig.drained().await;
    rig.assert_whole(6, 0);
    for reason in ["topic-refused", "payload-too-large", "topic-too-deep", "no-route"] {
        assert_eq!(rig.dead(reason), 1, "{reason}");
    }
    rig.stop().await;
    let audit = rig.log.audit().unwrap();
    assert_eq!((audit.delivered, audit.dead_lettered, audit.waiting), (6, 4, 0));
    assert!(audit.balances());
}

#[tokio::test]
async fn a_cloud_that_disconnects_where_it_could_refuse_costs_the_poison_only() {
    let switches = Switches {
        undeliverable: Undeliverable::Disconnect,
        ..Switches::default()
    };
    // Stricter than the profile says: only the cloud knows.
    let limits = Limits {
        topic: 60,
        ..Limits::default()
    };
    let mut rig = Rig::new(
        Version::V5,
        StandinConfig {
            switches,
            limits,
            ..StandinConfig::default()
        },
    )
    .await;
    rig.start();
    rig.publish("d1", 5);
    let long = format!("devices/d1/telemetry/{}", "x".repeat(100));
    rig.append("telemetry", "d1", &long, b"x", |_| {});
    rig.publish("d2", 5);
    rig.drained().await;
    assert_eq!(rig.dead("topic-refused"), 1);
    assert_eq!(rig.cloud.ledger().unique(), 10);
}

#[tokio::test]
async fn on_3_1_1_a_record_that_makes_the_cloud_close_is_found_and_becomes_a_dead_letter() {
    let limits = Limits {
        payload: 1000,
        ..Limits::default()
    };
    let mut rig = Rig::new(
        Version::V311,
        StandinConfig {
            limits,
            ..StandinConfig::default()
        },
    )
    .await;
    rig.config.in_flight = 8;
    poison_among_good_ones(&mut rig).await;
    let report = rig.cloud.ledger().report();
    assert_eq!((report.unique, report.gaps, report.out_of_order), (23, 0, 0), "{report:?}");
    assert!(rig.status().suspended.is_empty());
}

#[tokio::test]
async fn once_the_poison_message_is_suspended_records_go_many_at_a_time_again() {
    let mut rig = Rig::plain(Version::V311).await;
    rig.config.in_flight = 8;
    rig.config.probe_interval = std::time::Duration::from_secs(60);
    rig.cloud.faults().deny("dt/d1/*");
    rig.cloud.faults().delay_acks(std::time::Duration::from_millis(20));
    rig.publish("d1", 8);
    rig.publish("d2", 200);
    rig.start();
    rig.until("suspended", |rig| rig.status().suspended.len() == 1).await;
    rig.until("many at a time", |rig| rig.status().in_flight == 8).await;
    rig.until("the others are through", |rig| rig.waiting() == 8).await;
}

#[tokio::test]
async fn what_expired_is_not_sent_and_what_is_left_of_an_expiry_is() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.append("telemetry", "d1", "devices/d1/telemetry/t", b"short", |record| {
        record.expiry = Some(5)
    });
    rig.append("telemetry", "d1", "devices/d1/telemetry/t", b"long", |record| {
        record.expiry = Some(500)
    });
    rig.clock.advance(std::time::Duration::from_secs(10));
    rig.start();
    rig.drained().await;
    assert_eq!(rig.first_arrivals("dt/d1/t"), ["long"]);
    rig.stop().await;
    let audit = rig.log.audit().unwrap();
    assert_eq!((audit.expired, audit.delivered), (1, 1));
}

#[tokio::test]
async fn qos_0_routes_are_settled_when_written() {
    for version in BOTH {
        let mut rig = Rig::plain(version).await;
        rig.start();
        for _ in 0..10 {
            rig.append("telemetry", "d1", "devices/d1/lossy", b"x", |record| record.route = "lossy");
        }
        rig.drained().await;
        rig.until("arrived", |rig| rig.cloud.ledger().count() == 10).await;
        assert!(rig.cloud.ledger().entries().iter().all(|entry| entry.packet_id.is_none()));
    }
}

#[tokio::test]
async fn a_denied_qos_0_route_costs_one_connection_and_no_other_record() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.in_flight = 1;
    rig.cloud.faults().deny("lossy/*");
    for _ in 0..10 {
        rig.append("telemetry", "d1", "devices/d1/lossy", b"x", |record| record.route = "lossy");
        rig.publish("d2", 1);
    }
    rig.start();
    rig.until("the others are through", |rig| rig.first_arrivals("dt/d2/t").len() == 10)
        .await;
    rig.until("suspended", |rig| rig.status().suspended.len() == 1).await;
    assert_eq!(rig.status().suspended[0].identity, "d1");
    assert_eq!(rig.handle().stats().connects.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn alarms_overtake_telemetry_which_keeps_a_tenth() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.in_flight = 1;
    rig.publish("d1", 100);
    for number in 0..90 {
        rig.append("alarms", "d1", "devices/d1/alarm", format!("alarm {number}").as_bytes(), |_| {});
    }
    rig.start();
    rig.drained().await;
    let entries = rig.cloud.ledger().entries();
    let last_alarm = entries.iter().rposition(|entry| entry.topic == "al/d1").unwrap();
    let overtaken = entries[..last_alarm].iter().filter(|entry| entry.topic == "dt/d1/t").count();
    assert!((5..=30).contains(&overtaken), "{overtaken} telemetry records before the last alarm");
}

const CANARY: &str = "plant-7/canary";

/// A rig on MQTT 3.1.1 whose bridge proves its connections by a canary.
async fn proving() -> Rig {
    let limits = Limits {
        payload: 1000,
        ..Limits::default()
    };
    let config = StandinConfig {
        limits,
        ..StandinConfig::default()
    };
    let mut rig = Rig::new(Version::V311, config).await;
    rig.config.canary = Some(Canary {
        topic: CANARY.to_owned(),
        payload: b"canary"[..].into(),
    });
    rig.config.in_flight = 8;
    rig
}

/// Has a message that is too large for the cloud found between others.
async fn poison_among_good_ones(rig: &mut Rig) {
    rig.start();
    rig.publish("d1", 3);
    rig.drained().await;
    // The cloud took this topic before, so it is the message.
    rig.append("telemetry", "d1", "devices/d1/telemetry/t", &[0; 1001], |_| {});
    rig.publish("d1", 10);
    rig.publish("d2", 10);
    rig.drained().await;
    assert_eq!(rig.dead("peer-closes"), 1);
}

#[tokio::test]
async fn a_cloud_that_closes_at_every_publish_makes_no_record_a_dead_letter() {
    let mut rig = proving().await;
    rig.start();
    rig.publish("d1", 3);
    rig.drained().await;
    rig.cloud.faults().deny("*");
    rig.publish("d1", 20);
    // One is soon sent alone, as it is what every close finds in flight.
    let connects = |rig: &Rig| rig.handle().stats().connects.load(Ordering::Relaxed);
    let before = connects(&rig);
    rig.until("many connections were closed", |rig| connects(rig) >= before + 12).await;
    assert_eq!((rig.waiting(), rig.dead("peer-closes")), (20, 0));
    assert!(rig.status().suspended.is_empty(), "{:?}", rig.status());
    rig.cloud.faults().allow("*");
    rig.drained().await;
    let report = rig.cloud.ledger().report();
    assert_eq!((report.gaps, report.out_of_order), (0, 0), "{report:?}");
    assert_eq!(rig.first_arrivals("dt/d1/t").len(), 23);
}

#[tokio::test]
async fn with_a_canary_the_poison_message_is_found_and_no_other() {
    let mut rig = proving().await;
    poison_among_good_ones(&mut rig).await;
    assert_eq!((rig.first_arrivals("dt/d1/t").len(), rig.first_arrivals("dt/d2/t").len()), (13, 10));
    // One that makes known that its topic is allowed, and one for each of the three closes alone.
    assert!(rig.cloud.ledger().report().count >= 23 + 4, "{:?}", rig.cloud.ledger().report());
    assert!(rig.status().suspended.is_empty());
}

#[tokio::test]
async fn a_canary_that_the_policy_denies_stops_nothing_and_the_quiet_moment_does_its_work() {
    let mut rig = proving().await;
    rig.cloud.faults().deny(CANARY);
    rig.start();
    rig.publish("d1", 3);
    rig.drained().await;
    rig.append("telemetry", "d1", "devices/d1/telemetry/t", &[0; 1001], |_| {});
    rig.publish("d1", 10);
    rig.drained().await;
    assert_eq!(rig.dead("peer-closes"), 1);
    assert_eq!(rig.first_arrivals("dt/d1/t").len(), 13);
}
