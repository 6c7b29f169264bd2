//! The line-cutting proxy does what it says, with the stand-in behind it.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

#[path = "../../net/mod.rs"]
mod net;
mod support;

use std::{io::ErrorKind, time::Duration};

use net::Proxy;
use support::{DEADLINE, Raw, connect, plain};
use tokio::{io::AsyncReadExt, time::timeout};

async fn read_error(raw: &mut Raw) -> ErrorKind {
    let mut rest = Vec::new();
    timeout(DEADLINE, raw.stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap_err()
        .kind()
}

#[tokio::test]
async fn a_cut_resets_and_the_next_connection_is_served() {
    let cloud = plain().await;
    let proxy = Proxy::start(cloud.address()).await;
    for _ in 0..3 {
        let mut raw = Raw::connected(proxy.address(), 5, "c").await;
        raw.publish("t", b"", 1, 1).await;
        raw.expect_puback(1, 0).await;
        proxy.cut();
        assert_eq!(read_error(&mut raw).await, ErrorKind::ConnectionReset);
    }
    assert_eq!((cloud.ledger().count(), proxy.accepted()), (3, 3));
}

#[tokio::test]
async fn a_refusing_line_resets_new_connections_and_keeps_the_old() {
    let cloud = plain().await;
    let proxy = Proxy::start(cloud.address()).await;
    let mut old = Raw::connected(proxy.address(), 5, "old").await;
    proxy.refuse(true);
    let mut new = Raw::open(proxy.address(), 5).await;
    assert_eq!(read_error(&mut new).await, ErrorKind::ConnectionReset);
    old.answers_nothing().await;
    proxy.refuse(false);
    Raw::connected(proxy.address(), 5, "new").await;
}

#[tokio::test]
async fn a_black_hole_forwards_nothing_until_it_opens() {
    let cloud = plain().await;
    let proxy = Proxy::start(cloud.address()).await;
    let mut raw = Raw::connected(proxy.address(), 5, "c").await;
    proxy.black_hole(true);
    raw.publish("t", b"", 1, 1).await;
    assert!(timeout(Duration::from_millis(200), raw.stream.read_u8()).await.is_err());
    assert_eq!(cloud.ledger().count(), 0);
    proxy.black_hole(false);
    raw.expect_puback(1, 0).await;
}

#[tokio::test]
async fn a_delay_holds_in_both_directions() {
    let cloud = plain().await;
    let proxy = Proxy::start(cloud.address()).await;
    let mut raw = Raw::connected(proxy.address(), 5, "c").await;
    proxy.delay(Duration::from_millis(100));
    let sent = std::time::Instant::now();
    raw.answers_nothing().await;
    assert!(sent.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_line_breaks_in_the_middle_of_a_packet() {
    let cloud = plain().await;
    let proxy = Proxy::start(cloud.address()).await;
    let mut raw = Raw::connected(proxy.address(), 5, "c").await;
    let before = proxy.forwarded();
    proxy.cut_after_bytes(5);
    raw.publish("t", b"never whole", 1, 1).await;
    assert_eq!(read_error(&mut raw).await, ErrorKind::ConnectionReset);
    assert_eq!((proxy.forwarded() - before, cloud.ledger().count()), (5, 0));
    let mut raw = Raw::open(proxy.address(), 5).await;
    raw.send(&connect(5, "c", 30)).await;
    assert!(raw.packet().await.is_some());
}
