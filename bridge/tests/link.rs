//! The link itself: mutual TLS, quotas, refused certificates, shutdown.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use forebay_aws_standin::certificates::{Authority, ENDPOINT};
use forebay_aws_standin::{Rates, StandinConfig};
use forebay_bridge::{RateLimit, State, Version};
use support::Rig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn secured(authority: &Authority) -> Rig {
    let mut rig = Rig::new(
        Version::V5,
        StandinConfig {
            tls: Some(authority.server_tls().unwrap()),
            ..StandinConfig::default()
        },
    )
    .await;
    rig.config.host = ENDPOINT.to_owned();
    rig
}

#[tokio::test]
async fn mutual_tls_with_the_endpoints_name_carries_messages() {
    let authority = Authority::new("cloud").unwrap();
    for version in [Version::V5, Version::V311] {
        let mut rig = secured(&authority).await;
        rig.config.version = version;
        rig.config.tls = Some(authority.client_tls(Some(&authority.client("plant-7").unwrap())).unwrap().into());
        rig.start();
        rig.publish("d1", 20);
        rig.drained().await;
        rig.assert_whole(20, 0);
    }
}

#[tokio::test]
async fn certificates_that_are_not_trusted_are_named_on_both_sides() {
    let (authority, stranger) = (Authority::new("cloud").unwrap(), Authority::new("stranger").unwrap());
    let mut rig = secured(&authority).await;
    rig.config.tls = Some(stranger.client_tls(Some(&authority.client("plant-7").unwrap())).unwrap().into());
    rig.start();
    rig.until("named", |rig| rig.ended("tls") >= 1).await;
    let text = rig.status().last_error.unwrap().text;
    assert!(text.contains("not trusted here"), "{text}");
    assert!(matches!(rig.status().state, State::BackingOff { .. } | State::Connecting));
    rig.stop().await;

    rig.config.tls = Some(authority.client_tls(None).unwrap().into());
    rig.start();
    rig.until("named", |rig| rig.ended("tls") >= 1).await;
    let text = rig.status().last_error.unwrap().text;
    assert!(text.contains("wants a client certificate"), "{text}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.config.host = "no-such-host.invalid".to_owned();
    rig.start();
    rig.until("named", |rig| rig.ended("dns") >= 1).await;
    assert!(rig.status().last_error.unwrap().text.contains("cannot be resolved"));
}

#[tokio::test]
async fn the_quota_of_the_cloud_is_never_passed() {
    let rates = Rates {
        publishes: Some(100),
        ..Rates::default()
    };
    let mut rig = Rig::new(
        Version::V5,
        StandinConfig {
            rates,
            ..StandinConfig::default()
        },
    )
    .await;
    rig.config.rate_limit = RateLimit {
        messages_per_second: Some(100),
        bytes_per_second: Some(512 * 1024),
    };
    rig.start();
    rig.publish("d1", 250);
    rig.drained().await;
    rig.assert_whole(250, 0);
    assert_eq!(rig.cloud.stats().throttled, 0);
}

#[tokio::test]
async fn a_quota_below_what_was_promised_is_found_by_slowing_down() {
    let rates = Rates {
        publishes: Some(40),
        ..Rates::default()
    };
    let mut rig = Rig::new(
        Version::V5,
        StandinConfig {
            rates,
            ..StandinConfig::default()
        },
    )
    .await;
    rig.config.rate_limit = RateLimit {
        messages_per_second: Some(100),
        bytes_per_second: None,
    };
    rig.start();
    (0..10).for_each(|device| rig.publish(&format!("d{device}"), 20));
    rig.until("slower", |rig| rig.status().messages_per_second.is_some_and(|rate| rate < 60.0))
        .await;
    rig.drained().await;
    assert_eq!(rig.cloud.ledger().report().unique, 200);
}

#[tokio::test]
async fn a_shutdown_waits_for_outstanding_acks_and_says_goodbye() {
    for version in [Version::V5, Version::V311] {
        let mut rig = Rig::plain(version).await;
        rig.cloud.faults().delay_acks(Duration::from_millis(150));
        rig.start();
        rig.publish("d1", 10);
        rig.unique(10).await;
        let handle = rig.handle().clone();
        rig.stop().await;
        assert_eq!(handle.stats().delivered.load(std::sync::atomic::Ordering::Relaxed), 10);
        assert_eq!(handle.status().state, State::Stopped);
        assert_eq!(rig.waiting(), 0);
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_silent_cloud_beyond_its_grace() {
    let mut rig = Rig::plain(Version::V5).await;
    (rig.config.ack_timeout, rig.config.shutdown_grace) = (Duration::from_secs(60), Duration::from_millis(200));
    rig.start();
    rig.until("connected", |rig| rig.status().connected_since.is_some()).await;
    rig.cloud.faults().stall(true);
    rig.publish("d1", 3);
    rig.until("in flight", |rig| rig.status().in_flight == 3).await;
    rig.stop().await;
    assert_eq!(rig.waiting(), 3);
}

#[tokio::test]
async fn e20_a_page_on_the_tls_port_is_named_and_no_message_type() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "HTTP/1.0 302 Found\r\nLocation: http://login/\r\n\r\n",
        "220 smtp ready\r\n",
    ] {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut hello = [0; 1024];
                    let is_hello = socket.read(&mut hello).await.is_ok_and(|read| read > 0);
                    if is_hello && socket.write_all(answer.as_bytes()).await.is_ok() {
                        while socket.read(&mut hello).await.is_ok_and(|read| read > 0) {}
                    }
                });
            }
        });
        let authority = Authority::new("cloud").unwrap();
        let mut rig = secured(&authority).await;
        rig.config.tls = Some(authority.client_tls(None).unwrap().into());
        rig.config.port = port;
        rig.start();
        rig.until("named", |rig| rig.ended("tls") >= 1).await;
        let text = rig.status().last_error.unwrap().text;
        assert!(text.contains("does not answer in TLS") && text.contains("captive portal"), "{text}");
    }
}

#[tokio::test]
async fn k26_the_bytes_of_connecting_are_counted_and_those_of_a_connection_are_not() {
    let mut rig = Rig::plain(Version::V5).await;
    rig.start();
    rig.until("connected", |rig| rig.status().connected_since.is_some()).await;
    let bytes = |rig: &Rig| rig.handle().stats().connect_bytes.load(std::sync::atomic::Ordering::Relaxed);
    // CONNECT with its client id, and CONNACK with its properties.
    let connecting = bytes(&rig);
    assert!((20..300).contains(&connecting), "{connecting}");
    rig.publish("d1", 50);
    rig.drained().await;
    assert_eq!(bytes(&rig), connecting);
    rig.stop().await;
}
