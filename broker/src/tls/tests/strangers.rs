//! Peers that speak no TLS, too little of it, or nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::bench::{Listener, deadline};
use crate::tls::{HandshakeFault, accept};

/// The fault of a peer that sends `bytes` and waits for the end.
async fn fault_of(bytes: &[u8]) -> HandshakeFault {
    let tls = Listener::new().load().unwrap();
    let (here, mut there) = duplex(64 * 1024);
    let speaking = async move {
        there.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        there.read_to_end(&mut answer).await.ok();
    };
    let (outcome, ()) = tokio::join!(accept(here, &tls, deadline()), speaking);
    outcome.unwrap_err().fault
}

/// A ClientHello with one cipher suite and no extensions, naming `version` as its highest.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x00, 0x2f, 1, 0]);
    let mut hello = vec![
        0x16,
        3,
        1,
        0,
        u8::try_from(body.len() + 4).unwrap(),
        1,
        0,
        0,
        u8::try_from(body.len()).unwrap(),
    ];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn plain_mqtt_on_the_tls_port_gets_its_name() {
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
    assert_eq!(fault_of(connect).await, HandshakeFault::NotTls { looks_like: "plain MQTT" });
    assert_eq!(
        fault_of(b"GET / HTTP/1.1\r\n\r\n").await,
        HandshakeFault::NotTls { looks_like: "plain HTTP" }
    );
    assert_eq!(fault_of(b"\xff\x00junk").await.label(), "not_tls");
}

#[tokio::test]
async fn versions_before_tls_1_2_get_their_name() {
    for (version, name) in [([3, 0], "SSL 3.0"), ([3, 1], "TLS 1.0"), ([3, 2], "TLS 1.1")] {
        assert_eq!(fault_of(&old_hello(version)).await, HandshakeFault::VersionTooOld { offered: name });
    }
}

#[tokio::test]
async fn a_tls_1_2_hello_without_common_parameters_is_incompatible() {
    assert_eq!(fault_of(&old_hello([3, 3])).await.label(), "incompatible");
}

#[tokio::test]
async fn a_damaged_hello_is_a_protocol_fault() {
    let mut hello = old_hello([3, 3]);
    let last = hello.len() - 1;
    hello.truncate(last);
    hello[4] -= 1;
    hello[8] -= 1;
    assert_eq!(fault_of(&hello).await.label(), "protocol");
}

#[tokio::test]
async fn every_cut_of_a_hello_ends_in_a_fault_and_never_in_a_panic() {
    let tls = Listener::new().load().unwrap();
    let hello = old_hello([3, 3]);
    for length in 0..hello.len() {
        let (here, mut there) = duplex(1024);
        there.write_all(&hello[..length]).await.unwrap();
        drop(there);
        let fault = accept(here, &tls, deadline()).await.unwrap_err().fault;
        assert_eq!(fault.label(), "closed", "{length}: {fault}");
        assert_eq!(fault.is_noise(), length == 0);
    }
}

#[tokio::test]
async fn a_silent_peer_costs_no_more_than_the_deadline() {
    let tls = Listener::new().load().unwrap();
    let start = Instant::now();
    let (here, _there) = duplex(1024);
    let failure = accept(here, &tls, start + Duration::from_millis(30)).await.unwrap_err();
    assert_eq!(
        failure.fault,
        HandshakeFault::Timeout {
            heard: "no complete ClientHello came"
        }
    );
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn a_peer_that_closes_at_once_over_tcp_is_noise() {
    let tls = Listener::new().load().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    drop(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    let (stream, _) = listener.accept().await.unwrap();
    let failure = accept(stream, &tls, deadline()).await.unwrap_err();
    assert!(failure.fault.is_noise(), "{failure}");
}

#[test]
fn every_label_is_registered() {
    let faults = [
        HandshakeFault::NotTls { looks_like: "" },
        HandshakeFault::NoCertificate,
        HandshakeFault::ForgedOrOldCa,
        HandshakeFault::SilentClose,
        HandshakeFault::KeyNotHeld,
        HandshakeFault::Internal { detail: String::new() },
        HandshakeFault::PeerAlert { alert: String::new() },
    ];
    for fault in faults {
        assert!(HandshakeFault::LABELS.contains(&fault.label()), "{fault:?}");
    }
}
