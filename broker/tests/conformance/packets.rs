//! Section 2.1 and PINGREQ: what all packets have.

use forebay_broker::codec::{Packet, ReasonCode, Version};

use crate::support::{Bench, Client, publish};
use crate::{BOTH, OK, connected, frame};

/// Packets of a connected client with the flags that they must have: first byte and body.
fn bodies(version: Version) -> Vec<(u8, Vec<u8>)> {
    let is_five = version == Version::V5;
    let filter: &[u8] = if is_five { b"\0\x01\0\0\x01a" } else { b"\0\x01\0\x01a" };
    let mut all = vec![
        (0x40, b"\0\x09".to_vec()),
        (0x50, b"\0\x09".to_vec()),
        (0x62, b"\0\x09".to_vec()),
        (0x70, b"\0\x09".to_vec()),
        (0x82, [filter, b"\0"].concat()),
        (0xa2, filter.to_vec()),
        (0xc0, vec![]),
        (0xe0, vec![]),
    ];
    if is_five {
        // Method `m`.
        all.push((0xf0, b"\x18\x04\x15\0\x01m".to_vec()));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_of_the_fixed_header_end_the_connection() {
    let bench = Bench::new().await;
    for base in BOTH {
        let version = base("c").version;
        for (first, body) in bodies(version) {
            for flags in 0..16 {
                let mut client = connected(&bench, base("c")).await;
                client.send_raw(&frame(first & 0xf0 | flags, &body)).await;
                if flags != first & 0x0f {
                    client.expect_end(ReasonCode::MALFORMED_PACKET).await;
                } else if first < 0xe0 {
                    client.send(&Packet::PingReq).await;
                    while client.receive().await.unwrap() != Packet::PingResp {}
                }
            }
        }
        // CONNECT itself.
        for flags in 1..16 {
            let mut client = Client::opened(bench.address(), version).await;
            let level = if version == Version::V5 {
                b"\x05\x02\0\0\0\0\x01c"
            } else {
                &b"\x04\x02\0\0\0\x01c"[..]
            };
            client.send_raw(&frame(0x10 | flags, &[b"\0\x04MQTT", level].concat())).await;
            assert_eq!(client.receive().await, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pingreq_is_answered() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut client = connected(&bench, base("c")).await;
        client.send_raw(&[0xc0, 0].repeat(100)).await;
        for _ in 0..100 {
            client.expect(&Packet::PingResp).await;
        }
        // Also while publishes wait for their acks.
        bench.hold_commits().await;
        for packet_id in 1..=3 {
            client.send(&publish("cloud/a", 1 + (packet_id % 2) as u8, Some(packet_id))).await;
            client.ping().await;
        }
        bench.gate.open();
        for packet_id in 1..=3 {
            client.expect_ack(packet_id, OK).await;
        }
    }
}
