//! Outages, lost acks and cut lines: nothing is lost, order holds, duplicates stay within a window.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use forebay_aws_standin::{Cut, Limits, Point, StandinConfig, Which};
use forebay_bridge::{State, Version};
use support::Rig;

const BOTH: [Version; 2] = [Version::V5, Version::V311];

#[tokio::test]
async fn an_outage_is_replayed_in_order_and_without_loss() {
    for version in BOTH {
        let mut rig = Rig::plain(version).await;
        rig.cloud.faults().stop_listening().await.unwrap();
        rig.start();
        for _ in 0..50 {
            (0..10).for_each(|device| rig.publish(&format!("d{device}"), 2));
        }
        rig.until("refused", |rig| rig.ended("refused") >= 2).await;
        assert!(rig.status().last_error.unwrap().text.contains("refused the connection"));
        rig.cloud.faults().resume_listening().await.unwrap();
        rig.drained().await;
        rig.publish("d0", 5);
        rig.unique(1005).await;
        rig.drained().await;
        rig.assert_whole(1005, 0);
        assert_eq!(rig.status().state, State::Connected);
        rig.stop().await;
        assert_eq!(rig.cloud.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_lost_puback_costs_at_most_one_window_of_duplicates() {
    for version in BOTH {
        let mut rig = Rig::plain(version).await;
        rig.config.in_flight = 8;
        rig.cloud.faults().drop_pubacks(Which::Every(70));
        rig.start();
        rig.publish("d1", 100);
        rig.drained().await;
        assert!(rig.ended("ack_timeout") >= 1);
        let timeouts = rig.ended("ack_timeout");
        rig.assert_whole(100, timeouts * 8);
    }
}

#[tokio::test]
async fn cuts_before_and_after_the_commit_lose_nothing() {
    for version in BOTH {
        for (point, cut) in [
            (Point::BeforeCommit, Cut::Fin),
            (Point::AfterCommit, Cut::Fin),
            (Point::BeforeCommit, Cut::Reset),
            (Point::AfterCommit, Cut::Reset),
        ] {
            let mut rig = Rig::plain(version).await;
            rig.config.in_flight = 8;
            rig.cloud.faults().close_at_publish(30, point, cut);
            rig.start();
            rig.publish("d1", 100);
            rig.drained().await;
            rig.assert_whole(100, 8);
            assert_eq!(rig.dead("peer-closes"), 0);
        }
    }
}

#[tokio::test]
async fn acks_in_reverse_order_settle_what_they_name() {
    for version in BOTH {
        let mut rig = Rig::plain(version).await;
        rig.cloud.faults().reorder_acks(5);
        rig.start();
        rig.publish("d1", 203);
        rig.drained().await;
        rig.assert_whole(203, 0);
    }
}

#[tokio::test]
async fn a_late_puback_does_not_settle_a_record_of_the_next_connection() {
    for version in BOTH {
        let mut rig = Rig::plain(version).await;
        rig.config.in_flight = 4;
        // Acks come after the ack timer: always too late, for a connection that is gone.
        rig.cloud.faults().delay_acks(Duration::from_millis(600));
        rig.start();
        rig.publish("d1", 20);
        rig.until("given up twice", |rig| rig.ended("ack_timeout") >= 2).await;
        assert_eq!(rig.delivered(), 0);
        rig.cloud.faults().delay_acks(Duration::ZERO);
        rig.drained().await;
        let report = rig.cloud.ledger().report();
        assert_eq!((report.unique, report.gaps, report.out_of_order), (20, 0, 0));
        assert_eq!(rig.delivered(), 20);
    }
}

#[tokio::test]
async fn acks_that_arrive_twice_advance_nothing() {
    for version in BOTH {
        let mut rig = Rig::plain(version).await;
        rig.config.in_flight = 4;
        rig.cloud.faults().duplicate_pubacks(Which::Next(3));
        rig.start();
        rig.publish("d1", 60);
        rig.drained().await;
        rig.assert_whole(60, 12);
    }
}

#[tokio::test]
async fn a_device_that_the_cloud_is_silent_about_waits_while_others_go_on() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.ack_timeout = Duration::from_secs(2);
    rig.config.in_flight = 8;
    rig.cloud.faults().drop_pubacks(Which::Next(1));
    rig.start();
    rig.publish("d1", 1);
    rig.publish("d2", 1);
    rig.until("waiting", |rig| rig.status().waiting_devices == 1).await;
    rig.publish("d1", 3);
    rig.publish("d2", 3);
    rig.until("others go on", |rig| rig.first_arrivals("dt/d2/t").len() == 4).await;
    assert_eq!(rig.first_arrivals("dt/d1/t").len(), 1, "waiting");
    rig.drained().await;
    assert_eq!(rig.ended("ack_timeout"), 1);
    rig.assert_whole(8, 1);
}

#[tokio::test]
async fn receive_maximum_is_never_exceeded_even_right_after_a_reconnect() {
    let limits = Limits {
        receive_maximum: 5,
        ..Limits::default()
    };
    let mut rig = Rig::new(
        Version::V5,
        StandinConfig {
            limits,
            ..StandinConfig::default()
        },
    )
    .await;
    rig.config.in_flight = 1000;
    rig.config.ack_timeout = Duration::from_secs(5);
    rig.cloud.faults().delay_acks(Duration::from_millis(3));
    rig.start();
    rig.publish("d1", 150);
    rig.until("some", |rig| rig.delivered() > 20).await;
    rig.cloud.faults().cut_all(Cut::Reset);
    rig.drained().await;
    rig.assert_whole(150, 5);
}

#[tokio::test]
async fn unstable_connections_do_not_reset_the_backoff() {
    for version in BOTH {
        let mut rig = Rig::plain(version).await;
        rig.config.backoff.initial = Duration::from_millis(10);
        rig.config.backoff.ceiling = Duration::from_secs(60);
        rig.cloud.faults().refuse_connects(3, if version == Version::V5 { 0x97 } else { 3 });
        rig.cloud.faults().close_after_connack(Which::Next(4));
        rig.start();
        rig.publish("d1", 3);
        rig.drained().await;
        rig.assert_whole(3, 0);
        assert_eq!(rig.cloud.connects().len(), 8);
        assert!(rig.ended("busy") == 3, "{:?}", rig.handle().stats());
        // The next bound would be 10 ms doubled once per failure; the unit tests hold the arithmetic.
        assert_eq!(rig.dead("peer-closes"), 0);
    }
}

#[tokio::test]
async fn a_takeover_is_named_and_backed_off_from() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.start();
    rig.publish("d1", 1);
    rig.drained().await;
    rig.cloud.faults().disconnect_all(0x8E);
    rig.until("the takeover", |rig| rig.ended("taken_over") == 1).await;
    rig.publish("d1", 1);
    rig.drained().await;
    assert!(rig.status().last_error.unwrap().text.contains("client id"));
    rig.assert_whole(2, 0);
}

#[tokio::test]
async fn a_restart_goes_on_where_the_log_stands() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.publish("d1", 10);
    rig.start();
    rig.drained().await;
    rig.stop().await;
    rig.clock.advance(Duration::from_secs(60));
    rig.publish("d1", 10);
    rig.clock.advance(Duration::from_secs(60));
    rig.start();
    rig.drained().await;
    rig.assert_whole(20, 0);
    let entries = rig.cloud.ledger().entries();
    let has = |entry: &forebay_aws_standin::Entry, name: &str| entry.user_properties.iter().any(|(key, _)| key == name);
    assert!(entries[..10].iter().all(|entry| !has(entry, "forebay-late")));
    assert!(
        entries[10..]
            .iter()
            .all(|entry| has(entry, "forebay-late") && has(entry, "forebay-retry"))
    );
    assert!(
        entries
            .iter()
            .all(|entry| has(entry, "forebay-received-at") && entry.forebay_id.as_ref().unwrap().starts_with("plant-7/"))
    );
    rig.stop().await;
    assert!(rig.log.audit().unwrap().balances());
}
