//! Answers that few clouds give, and lines on which they take long.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use forebay_bridge::Version;
use support::Rig;
use support::scripted::{ACCEPT_V5, cloud};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A cloud of MQTT 5 that answers a PUBLISH with what `answer` says, by packet id and the bytes behind it.
async fn scripted(answer: impl Fn(u16, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> u16 {
    cloud(|_| ACCEPT_V5.to_vec(), move |publish| answer(publish.id, publish.rest)).await
}

/// A line to `port` that carries so many bytes per second towards it.
async fn slow_line(port: u16, bytes_per_second: usize) -> u16 {
    const STEP: Duration = Duration::from_millis(50);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let slow = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_far, &mut to_near).await });
            tokio::spawn(async move {
                let mut chunk = vec![0; bytes_per_second / 20];
                let mut pace = tokio::time::interval(STEP);
                while let Ok(read @ 1..) = from_near.read(&mut chunk).await {
                    pace.tick().await;
                    if to_far.write_all(&chunk[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    slow
}

#[tokio::test]
async fn e4_a_publish_too_large_for_the_broker_is_a_dead_letter_and_the_line_goes_on() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.cloud.faults().answer("dt/d1/big", 0x95, None);
    rig.start();
    rig.publish("d1", 5);
    rig.append("telemetry", "d1", "devices/d1/telemetry/big", &[b'x'; 3000], |_| {});
    rig.publish("d2", 5);
    rig.drained().await;
    assert_eq!(rig.dead("packet-too-large"), 1);
    assert_eq!(rig.cloud.ledger().unique(), 10);
    assert_eq!(rig.handle().stats().reconnects().map(|(_, count)| count).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_code_that_no_standard_has_suspends_its_pair_and_no_other() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.port = scripted(|id, body| {
        let [high, low] = id.to_be_bytes();
        body.ends_with(b"odd").then(|| vec![0x40, 4, high, low, 0xC3, 0])
    })
    .await;
    rig.start();
    rig.append("telemetry", "d1", "devices/d1/telemetry/t", b"odd", |_| {});
    rig.publish("d2", 20);
    rig.until("the others are delivered", |rig| rig.delivered() == 20).await;
    rig.until("suspended", |rig| rig.status().suspended.len() == 1).await;
    assert_eq!(rig.waiting(), 1, "nothing is lost");
}

#[tokio::test]
async fn the_reason_of_a_disconnect_without_properties_is_named() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.port = scripted(|_, _| Some(vec![0xE0, 1, 0x8E])).await;
    rig.start();
    rig.publish("d1", 1);
    rig.until("named", |rig| rig.ended("taken_over") >= 1).await;
    let text = rig.status().last_error.unwrap().text;
    assert!(text.contains("another client has connected with our client id"), "{text}");
}

#[tokio::test]
async fn a_quota_told_by_a_disconnect_without_properties_slows_the_lane() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.port = scripted(|_, _| Some(vec![0xE0, 1, 0x97])).await;
    rig.start();
    rig.publish("d1", 1);
    rig.until("slower", |rig| rig.ended("busy") >= 1 && rig.status().messages_per_second.is_some())
        .await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_counts_against_the_message_that_causes_it() {
    let mut rig = Rig::plain(Version::V5).await;
    // A SUBACK, for which nothing asked.
    rig.config.port = scripted(|_, body| body.ends_with(b"odd").then(|| vec![0x90, 4, 0, 1, 0, 0])).await;
    rig.start();
    rig.publish("d1", 5);
    rig.until("the topic is known to be allowed", |rig| rig.delivered() == 5).await;
    rig.append("telemetry", "d1", "devices/d1/telemetry/t", b"odd", |_| {});
    rig.publish("d2", 5);
    rig.drained().await;
    assert_eq!(rig.dead("peer-closes"), 1);
    assert_eq!(rig.delivered(), 10);
}

#[tokio::test]
async fn a_large_publish_over_a_slow_line_arrives() {
    for version in [Version::V5, Version::V311] {
        let mut rig = Rig::plain(version).await;
        rig.config.port = slow_line(rig.cloud.address().port(), 16 * 1024).await;
        rig.start();
        for _ in 0..2 {
            rig.append("telemetry", "d1", "devices/d1/telemetry/t", &[b'x'; 20_000], |_| {});
        }
        // More than the ack timeout of 400 ms each.
        rig.drained().await;
        assert_eq!(rig.delivered(), 2);
        assert_eq!(rig.ended("ack_timeout"), 0);
        assert_eq!(rig.cloud.ledger().report().count, 2, "each was sent once");
    }
}
