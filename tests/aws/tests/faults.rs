//! Each fault does what it says, and no more.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use std::{io::ErrorKind, time::Duration};

use forebay_aws_standin::{Cut, Flap, Point, Policy, Which};
use support::{DEADLINE, Raw, connect, plain};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// How the next read ends: a reset, or the peer's end.
async fn ends_with_reset(raw: &mut Raw) -> bool {
    let mut rest = Vec::new();
    match timeout(DEADLINE, raw.stream.read_to_end(&mut rest)).await.unwrap() {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            true
        }
    }
}

/// Whether nothing comes for a while and the connection stays.
async fn is_silent(raw: &mut Raw) -> bool {
    timeout(Duration::from_millis(200), raw.stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn the_next_connects_are_refused_with_the_code() {
    let cloud = plain().await;
    for (version, code, expected) in [
        (5, 0x97, Some(vec![0x20, 3, 0, 0x97, 0])),
        (4, 0x97, None),
        (4, 3, Some(vec![0x20, 2, 0, 3])),
    ] {
        cloud.faults().refuse_connects(2, code);
        for _ in 0..2 {
            let mut raw = Raw::open(cloud.address(), version).await;
            raw.send(&connect(version, "c", 30)).await;
            assert_eq!(raw.packet().await, expected);
            assert_eq!(raw.packet().await, None);
        }
        Raw::connected(cloud.address(), version, "c").await;
    }
    assert_eq!((cloud.stats().connects_refused, cloud.violation_count()), (6, 0));
    assert_eq!(cloud.connects().iter().filter(|connect| !connect.accepted).count(), 6);
}

#[tokio::test]
async fn a_connack_is_dropped() {
    let cloud = plain().await;
    cloud.faults().drop_connacks(Which::Next(1));
    let mut silent = Raw::open(cloud.address(), 5).await;
    silent.send(&connect(5, "c", 30)).await;
    assert!(is_silent(&mut silent).await);
    Raw::connected(cloud.address(), 5, "c").await;
}

#[tokio::test]
async fn the_unstable_connection_is_closed_right_after_its_connack() {
    let cloud = plain().await;
    cloud.faults().close_after_connack(Which::Next(1));
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    assert_eq!(raw.packet().await, None);
    Raw::connected(cloud.address(), 5, "c").await.answers_nothing().await;
}

#[tokio::test]
async fn what_is_sent_while_the_connack_is_delayed_is_a_violation() {
    let cloud = plain().await;
    cloud.faults().delay_connacks(Duration::from_secs(3600));
    let mut raw = Raw::open(cloud.address(), 5).await;
    raw.send(&connect(5, "c", 30)).await;
    raw.send(&[0xC0, 0]).await;
    assert_eq!(raw.packet().await, None);
    assert_eq!(cloud.violation_count(), 1);
}

#[tokio::test]
async fn a_stalled_cloud_reads_and_answers_nothing() {
    let cloud = plain().await;
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    cloud.faults().stall(true);
    raw.publish("t", b"swallowed", 1, 1).await;
    raw.send(&[0xC0, 0]).await;
    let read = async {
        while cloud.stats().swallowed < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, read).await.unwrap();
    let ledger = cloud.ledger();
    cloud.faults().stall(false);
    raw.publish("t", b"taken", 1, 2).await;
    raw.expect_puback(2, 0).await;
    assert!(!ledger.contains(b"swallowed") && ledger.contains(b"taken"));
}

#[tokio::test]
async fn pubacks_are_dropped_next_every_and_all() {
    for (which, acked) in [
        (Which::Next(2), &[3_u16, 4, 5, 6][..]),
        (Which::Every(3), &[1, 2, 4, 5]),
        (Which::All, &[]),
        (Which::None, &[1, 2, 3, 4, 5, 6]),
    ] {
        let cloud = plain().await;
        cloud.faults().drop_pubacks(which);
        let mut raw = Raw::connected(cloud.address(), 5, "c").await;
        for id in 1..=6 {
            raw.publish("t", &[id as u8], 1, id).await;
        }
        for &id in acked {
            raw.expect_puback(id, 0).await;
        }
        raw.answers_nothing().await;
        assert_eq!(
            (cloud.ledger().count(), cloud.stats().acks_dropped),
            (6, 6 - acked.len() as u64),
            "{which:?}"
        );
    }
}

#[tokio::test]
async fn pubacks_are_duplicated() {
    let cloud = plain().await;
    cloud.faults().duplicate_pubacks(Which::Next(1));
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    raw.publish("t", b"", 1, 1).await;
    raw.expect_puback(1, 0).await;
    raw.expect_puback(1, 0).await;
    raw.answers_nothing().await;
}

#[tokio::test]
async fn answers_carry_any_code_by_topic_and_count() {
    let cloud = plain().await;
    cloud.faults().answer("poor/*", 0x97, Some(1));
    cloud.faults().answer("odd/*", 0x95, None);
    cloud.faults().answer("nobody/*", 0x10, None);
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    for (id, topic, code) in [
        (1, "poor/a", 0x97),
        (2, "poor/a", 0),
        (3, "odd/a", 0x95),
        (4, "odd/b", 0x95),
        (5, "nobody/a", 0x10),
        (6, "x", 0),
    ] {
        raw.publish(topic, topic.as_bytes(), 1, id).await;
        raw.expect_puback(id, code).await;
    }
    assert_eq!(cloud.ledger().count(), 3, "poor/a once, nobody/a, x");
    cloud.faults().clear_answers();
    raw.publish("odd/a", b"", 1, 7).await;
    raw.expect_puback(7, 0).await;

    cloud.faults().answer("quota/*", 0x97, None);
    cloud.faults().answer("denied/*", 0x87, None);
    let mut raw = Raw::connected(cloud.address(), 4, "c").await;
    raw.publish("quota/a", b"", 1, 1).await;
    raw.answers_nothing().await;
    raw.publish("denied/a", b"", 1, 2).await;
    assert_eq!(raw.packet().await, None);
    assert_eq!(cloud.violation_count(), 0);
}

#[tokio::test]
async fn the_policy_is_swapped_while_running() {
    let cloud = plain().await;
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    for (id, code) in [(1, 0), (2, 0x87), (3, 0), (4, 0x87)] {
        match id {
            2 => cloud.faults().deny("t*"),
            3 => cloud.faults().allow("t*"),
            4 => cloud.faults().set_policy(Policy {
                publish: vec!["other".into()],
                ..Policy::allow_all()
            }),
            _ => {}
        }
        raw.publish("t/a", b"", 1, id).await;
        raw.expect_puback(id, code).await;
    }
    assert_eq!((cloud.stats().denied, cloud.ledger().count()), (2, 2));
}

#[tokio::test]
async fn the_nth_publish_closes_the_connection_before_or_after_its_commit() {
    for (point, cut) in [
        (Point::BeforeCommit, Cut::Fin),
        (Point::BeforeCommit, Cut::Reset),
        (Point::AfterCommit, Cut::Fin),
        (Point::AfterCommit, Cut::Reset),
    ] {
        let cloud = plain().await;
        cloud.faults().close_at_publish(2, point, cut);
        let mut raw = Raw::connected(cloud.address(), 5, "c").await;
        raw.publish("t", b"first", 1, 1).await;
        raw.expect_puback(1, 0).await;
        raw.publish("t", b"second", 1, 2).await;
        assert_eq!(ends_with_reset(&mut raw).await, cut == Cut::Reset, "{point:?} {cut:?}");
        assert_eq!(cloud.ledger().contains(b"second"), point == Point::AfterCommit);
        let mut raw = Raw::connected(cloud.address(), 5, "c").await;
        raw.publish("t", b"second", 1, 1).await;
        raw.expect_puback(1, 0).await;
        assert_eq!(cloud.ledger().duplicates(), u64::from(point == Point::AfterCommit));
    }
}

#[tokio::test]
async fn all_connections_are_cut_or_told_why() {
    let cloud = plain().await;
    let mut raws = [
        Raw::connected(cloud.address(), 5, "a").await,
        Raw::connected(cloud.address(), 4, "b").await,
    ];
    cloud.faults().cut_all(Cut::Reset);
    for raw in &mut raws {
        assert!(ends_with_reset(raw).await);
    }
    let mut raw = Raw::connected(cloud.address(), 5, "a").await;
    cloud.faults().disconnect_all(0x98);
    assert_eq!(raw.packet().await, Some(vec![0xE0, 2, 0x98, 0]));
    assert_eq!(raw.packet().await, None);
}

#[tokio::test]
async fn acks_are_delayed_and_reordered() {
    let cloud = plain().await;
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    cloud.faults().delay_acks(Duration::from_millis(150));
    let sent = std::time::Instant::now();
    raw.publish("t", b"1", 1, 1).await;
    raw.answers_nothing().await;
    assert_eq!(cloud.ledger().count(), 1);
    raw.expect_puback(1, 0).await;
    assert!(sent.elapsed() >= Duration::from_millis(150));

    cloud.faults().delay_acks(Duration::ZERO);
    cloud.faults().reorder_acks(3);
    for id in 1..=5 {
        raw.publish("t", &[id as u8], 1, id).await;
    }
    for id in [3, 2, 1, 5, 4] {
        raw.expect_puback(id, 0).await;
    }
}

#[tokio::test]
async fn a_forgotten_session_is_not_present() {
    let cloud = plain().await;
    // 3.1.1 without clean session: flags 0.
    let persistent = support::connect_with(4, "c", 30, 0, &[]);
    for (forget, present) in [(false, 0), (false, 1), (true, 0), (false, 1)] {
        if forget {
            cloud.faults().forget_sessions();
        }
        let mut raw = Raw::open(cloud.address(), 4).await;
        raw.send(&persistent).await;
        assert_eq!(raw.packet().await, Some(vec![0x20, 2, present, 0]));
        raw.send(&[0xE0, 0]).await;
        assert_eq!(raw.packet().await, None);
        while cloud.stats().connected > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_cloud_that_is_away_refuses_connections_and_comes_back_on_its_port() {
    let cloud = plain().await;
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    for _ in 0..3 {
        cloud.faults().stop_listening().await.unwrap();
        assert!(ends_with_reset(&mut raw).await);
        assert_eq!(
            TcpStream::connect(cloud.address()).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        cloud.faults().stop_listening().await.unwrap();
        cloud.faults().resume_listening().await.unwrap();
        cloud.faults().resume_listening().await.unwrap();
        raw = Raw::connected(cloud.address(), 5, "c").await;
    }
    let faults = cloud.faults();
    cloud.shutdown().await;
    assert!(faults.stop_listening().await.is_err());
}

#[tokio::test]
async fn a_flapping_script_ends_with_the_cloud_there() {
    let cloud = plain().await;
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    cloud.faults().flap(vec![Flap { down_ms: 20, up_ms: 20 }; 3]);
    assert!(ends_with_reset(&mut raw).await);
    let mut refused = 0;
    let back = async {
        // Three outages of 20 ms: while one lasts connecting is refused; after the last a connection stays.
        loop {
            if TcpStream::connect(cloud.address()).await.is_err() {
                refused += 1;
                tokio::task::yield_now().await;
                continue;
            }
            let mut raw = Raw::open(cloud.address(), 5).await;
            raw.send(&connect(5, "c", 30)).await;
            if raw.packet().await.is_some() && is_silent(&mut raw).await {
                return;
            }
        }
    };
    timeout(DEADLINE, back).await.unwrap();
    assert!(refused > 0);
}

#[tokio::test]
async fn clear_turns_every_fault_off() {
    let cloud = plain().await;
    let faults = cloud.faults();
    faults.refuse_connects(5, 0x97);
    faults.drop_connacks(Which::All);
    faults.close_after_connack(Which::All);
    faults.stall(true);
    faults.drop_pubacks(Which::All);
    faults.answer("*", 0x97, None);
    faults.close_at_publish(1, Point::BeforeCommit, Cut::Reset);
    faults.delay_acks(Duration::from_secs(3600));
    faults.reorder_acks(100);
    faults.clear();
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    raw.publish("t", b"", 1, 1).await;
    raw.expect_puback(1, 0).await;
}
