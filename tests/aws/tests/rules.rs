//! Every row of AWS's rules, fed as raw bytes: the outcome by version, and a violation logged where the client is at fault.

#![allow(
    clippy::type_complexity,
    clippy::unwrap_used,
    reason = "tables of cases; a helper that fails fails the test"
)]

mod support;

use std::{sync::Arc, time::Duration};

use forebay_aws_standin::{Limits, Policy, Qos2, RateOutcome, Rates, Standin, StandinConfig, Switches, Undeliverable};
use support::{Raw, connect, connect_with, packet, plain, publish, subscribe};

/// What a client sees after sending something.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Puback(u8),
    /// The end, on 5 after this DISCONNECT.
    End(u8),
    /// Nothing; the link stays.
    Nothing,
}

async fn seen(raw: &mut Raw) -> Seen {
    raw.send(&[0xC0, 0]).await;
    match raw.packet().await {
        None => Seen::End(0),
        Some(packet) => match packet[0] {
            0x40 => Seen::Puback(packet.get(4).copied().unwrap_or(0)),
            0xD0 => Seen::Nothing,
            0xE0 => {
                assert_eq!(raw.packet().await, None, "DISCONNECT is the last packet");
                Seen::End(packet[2])
            }
            other => panic!("packet 0x{other:02X}"),
        },
    }
}

/// On 3.1.1 an end has no code.
fn by_version(version: u8, expected: &Seen) -> Seen {
    match expected {
        Seen::End(_) if version == 4 => Seen::End(0),
        other => other.clone(),
    }
}

#[tokio::test]
async fn each_publish_rule_has_its_outcome_on_the_wire() {
    use Seen::{End, Nothing, Puback};
    let big = |size: usize| vec![b'x'; size];
    let long = "t".repeat(257);
    let deep = "a/".repeat(8);
    // name, on 3.1.1, on 5, violation, topic, payload, flags, id
    let rows: Vec<(&str, Seen, Seen, bool, &str, Vec<u8>, u8, u16)> = vec![
        ("the largest payload", Puback(0), Puback(0), false, "t", big(131_072), 2, 1),
        ("one byte more", End(0), Puback(0x80), true, "t", big(131_073), 2, 1),
        ("one byte more at QoS 0", End(0), End(0x95), true, "t", big(131_073), 0, 0),
        ("more than the largest packet", End(0), End(0x95), true, "t", big(149_504), 2, 1),
        ("a topic too long", End(0), Puback(0x90), true, &long, vec![], 2, 1),
        ("a topic too deep", End(0), Puback(0x90), true, &deep, vec![], 2, 1),
        ("a reserved topic", End(0), Puback(0x90), true, "$aws/foo", vec![], 2, 1),
        ("a reserved topic at QoS 0", End(0), End(0x90), true, "$aws/foo", vec![], 0, 0),
        ("basic ingest", Puback(0), Puback(0), false, "$aws/rules/my_rule/a", vec![], 2, 1),
        ("a wildcard", End(0), End(0x90), true, "a/#", vec![], 2, 1),
        ("QoS 2", End(0), End(0x9B), true, "t", vec![], 4, 1),
        ("QoS 3", End(0), End(0x81), true, "t", vec![], 6, 1),
        ("packet id 0", End(0), End(0x81), true, "t", vec![], 2, 0),
        ("DUP at QoS 0", End(0), End(0x81), true, "t", vec![], 8, 0),
        ("denied by policy", End(0), Puback(0x87), false, "denied/x", vec![], 2, 1),
        ("denied by policy at QoS 0", End(0), End(0x87), false, "denied/x", vec![], 0, 0),
        ("QoS 0", Nothing, Nothing, false, "t", vec![], 0, 0),
        ("QoS 1, retained", Puback(0), Puback(0), false, "t", vec![], 3, 1),
    ];
    let policy = Policy {
        deny: vec!["denied/*".into()],
        ..Policy::allow_all()
    };
    for (name, on_311, on_5, violation, topic, payload, flags, id) in rows {
        for (version, expected) in [(4, &on_311), (5, &on_5)] {
            let config = StandinConfig {
                policy: policy.clone(),
                ..StandinConfig::default()
            };
            let cloud = Standin::start(config).await.unwrap();
            let mut raw = Raw::connected(cloud.address(), version, "c").await;
            raw.send(&publish(version, topic, &payload, flags, id)).await;
            assert_eq!(seen(&mut raw).await, by_version(version, expected), "{name} on {version}");
            assert_eq!(
                cloud.violation_count() > 0,
                violation,
                "{name} on {version}: {:?}",
                cloud.violations()
            );
            let committed = matches!(expected, Puback(0) | Nothing);
            assert_eq!(cloud.ledger().count(), u64::from(committed), "{name} on {version}");
        }
    }
}

#[tokio::test]
async fn other_packets_that_break_the_protocol_end_the_connection() {
    let second_connect = |version| connect(version, "c", 30);
    type Make = fn(u8) -> Vec<u8>;
    let rows: [(&str, u8, Make); 7] = [
        ("PUBREL", 0x82, |_| packet(0x62, &[0, 1])),
        ("AUTH", 0x82, |_| packet(0xF0, &[])),
        ("CONNACK from a client", 0x82, |_| packet(0x20, &[0, 0])),
        ("SUBSCRIBE with wrong flags", 0x81, |_| packet(0x80, &[0, 1, 0, 1, b'a', 0])),
        ("an endless length", 0x81, |_| vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]),
        ("a torn topic", 0x81, |_| packet(0x30, &[0, 9, b'a'])),
        ("PUBACK that was never due", 0xFF, |_| packet(0x40, &[0, 1])),
    ];
    for version in [4, 5] {
        let cloud = plain().await;
        let mut raw = Raw::connected(cloud.address(), version, "c").await;
        raw.send(&second_connect(version)).await;
        assert_eq!(seen(&mut raw).await, by_version(version, &Seen::End(0x82)));
        for (name, code, make) in &rows {
            let cloud = plain().await;
            let mut raw = Raw::connected(cloud.address(), version, "c").await;
            raw.send(&make(version)).await;
            let expected = if *code == 0xFF {
                Seen::Nothing
            } else {
                by_version(version, &Seen::End(*code))
            };
            assert_eq!(seen(&mut raw).await, expected, "{name} on {version}");
            assert_eq!(cloud.violation_count(), 1, "{name} on {version}");
        }
    }
}

#[tokio::test]
async fn each_connect_rule_refuses_with_its_code() {
    let long_id = "i".repeat(129);
    let will = |flags| connect_with(4, "c", 30, flags, &[0, 1, b'w', 0, 1, b'x']);
    let rows: Vec<(&str, Vec<u8>, Option<Vec<u8>>)> = vec![
        (
            "a client id too long on 5",
            connect(5, &long_id, 30),
            Some(vec![0x20, 3, 0, 0x85, 0]),
        ),
        ("a client id too long on 3.1.1", connect(4, &long_id, 30), None),
        ("a reserved client id", connect(5, "$x", 30), Some(vec![0x20, 3, 0, 0x85, 0])),
        (
            "a client id denied by policy",
            connect(5, "stranger", 30),
            Some(vec![0x20, 3, 0, 0x87, 0]),
        ),
        ("a will of QoS 2", will(0b0001_0110), None),
        ("a will of QoS 1", will(0b0000_1110), Some(vec![0x20, 2, 0, 0])),
        (
            "a reserved flag",
            connect_with(5, "c", 30, 0b11, &[]),
            Some(vec![0x20, 3, 0, 0x81, 0]),
        ),
        ("bytes after the end", connect_with(4, "c", 30, 0b10, b"more"), None),
        ("an unknown protocol level", connect(3, "c", 30), Some(vec![0x20, 2, 0, 1])),
        ("no CONNECT", packet(0xC0, &[]), None),
    ];
    let policy = Policy {
        connect: vec!["c".into()],
        ..Policy::allow_all()
    };
    for (name, bytes, expected) in rows {
        let cloud = Standin::start(StandinConfig {
            policy: policy.clone(),
            ..StandinConfig::default()
        })
        .await
        .unwrap();
        let mut raw = Raw::open(cloud.address(), 5).await;
        raw.send(&bytes).await;
        assert_eq!(raw.packet().await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_packet_before_the_connack_is_a_violation() {
    let cloud = plain().await;
    let mut raw = Raw::open(cloud.address(), 5).await;
    let mut bytes = connect(5, "eager", 30);
    bytes.extend(publish(5, "t", b"early", 2, 1));
    raw.send(&bytes).await;
    assert_eq!(raw.packet().await, None);
    assert!(
        cloud.violations()[0].contains("before it had the CONNACK"),
        "{:?}",
        cloud.violations()
    );
    assert_eq!(cloud.ledger().count(), 0);
}

#[tokio::test]
async fn a_client_id_that_connects_again_takes_over() {
    let cloud = plain().await;
    let mut first = Raw::connected(cloud.address(), 5, "same").await;
    let mut second = Raw::connected(cloud.address(), 5, "same").await;
    assert_eq!(first.packet().await, Some(vec![0xE0, 2, 0x8E, 0]));
    assert_eq!(first.packet().await, None);
    second.answers_nothing().await;
    assert_eq!(cloud.stats().connected, 1);
}

#[tokio::test]
async fn keep_alive_is_clamped_and_ends_a_silent_client_after_one_and_a_half() {
    let limits = Limits {
        keep_alive: 1..=1,
        ..Limits::default()
    };
    let cloud = Standin::start(StandinConfig {
        limits,
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    let mut raw = Raw::open(cloud.address(), 5).await;
    raw.send(&connect(5, "silent", 0)).await;
    let connack = raw.packet().await.unwrap();
    assert!(
        connack.windows(3).any(|property| property == [0x13, 0, 1]),
        "Server Keep Alive 1: {connack:02X?}"
    );
    let connected = std::time::Instant::now();
    assert_eq!(raw.packet().await, Some(vec![0xE0, 2, 0x8D, 0]));
    assert!(connected.elapsed() >= Duration::from_millis(1400));
    assert_eq!(cloud.stats().keep_alive_timeouts, 1);
}

#[tokio::test]
async fn the_hundred_and_first_unacked_publish_is_a_violation() {
    for version in [4, 5] {
        let cloud = plain().await;
        cloud.faults().drop_pubacks(forebay_aws_standin::Which::All);
        let mut raw = Raw::connected(cloud.address(), version, "c").await;
        for id in 1..=101 {
            raw.publish("t", b"", 1, id).await;
        }
        let expected = if version == 5 { Seen::End(0x93) } else { Seen::Nothing };
        assert_eq!(seen(&mut raw).await, expected);
        assert_eq!((cloud.ledger().count(), cloud.violation_count()), (100, 1));
    }
}

#[tokio::test]
async fn a_packet_id_used_again_in_flight_is_a_violation_unless_3_1_1_resends_it() {
    for (version, flags, violations) in [(5, 2, 1), (5, 0b1010, 1), (4, 2, 1), (4, 0b1010, 0)] {
        let cloud = plain().await;
        cloud.faults().drop_pubacks(forebay_aws_standin::Which::Next(1));
        let mut raw = Raw::connected(cloud.address(), version, "c").await;
        raw.publish("t", b"", 1, 7).await;
        raw.send(&publish(version, "t", b"", flags, 7)).await;
        raw.expect_puback(7, 0).await;
        assert_eq!(cloud.violation_count(), violations, "{version} {flags:04b}");
        assert_eq!(cloud.ledger().duplicates(), 1);
    }
}

#[tokio::test]
async fn topic_aliases_are_resolved_up_to_the_limit() {
    let with_alias = |topic: &str, alias: u8| {
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend([0, 1, 3, 0x23, 0, alias]);
        packet(0x32, &body)
    };
    let cloud = plain().await;
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    raw.send(&with_alias("a/b", 8)).await;
    raw.expect_puback(1, 0).await;
    raw.send(&with_alias("", 8)).await;
    raw.expect_puback(1, 0).await;
    assert!(cloud.ledger().entries().iter().all(|entry| entry.topic == "a/b"));
    for (topic, alias, code) in [("a", 9, 0x94), ("", 7, 0x82)] {
        let mut raw = Raw::connected(cloud.address(), 5, "c").await;
        raw.send(&with_alias(topic, alias)).await;
        assert_eq!(seen(&mut raw).await, Seen::End(code), "alias {alias}");
    }
}

#[tokio::test]
async fn subscribe_rules_have_their_codes() {
    let policy = Policy {
        deny: vec!["denied/*".into()],
        ..Policy::allow_all()
    };
    let limits = Limits {
        subscriptions: 9,
        ..Limits::default()
    };
    let config = StandinConfig {
        policy,
        limits,
        ..StandinConfig::default()
    };
    let many: Vec<String> = (0..9).map(|number| format!("f/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();

    let cloud = Standin::start(config.clone()).await.unwrap();
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    raw.send(&subscribe(5, 1, &["a/#", "a/#/b", "denied/x"])).await;
    assert_eq!(raw.packet().await, Some(vec![0x90, 6, 0, 1, 0, 1, 0x8F, 0x87]));
    raw.send(&subscribe(5, 2, &many)).await;
    assert_eq!(raw.packet().await.unwrap()[5..], [0x97; 9]);
    raw.send(&subscribe(5, 3, &many[..8])).await;
    assert_eq!(raw.packet().await.unwrap()[5..], [1; 8]);
    raw.send(&subscribe(5, 4, &many[8..])).await;
    assert_eq!(raw.packet().await.unwrap()[5..], [0x97], "a tenth subscription");
    raw.send(&packet(0xA2, &[0, 5, 0, 0, 3, b'a', b'/', b'#', 0, 1, b'z'])).await;
    assert_eq!(raw.packet().await, Some(vec![0xB0, 5, 0, 5, 0, 0, 0x11]));
    raw.send(&packet(0x82, &[0, 6, 2, 0x0B, 1, 0, 1, b'a', 0])).await;
    assert_eq!(seen(&mut raw).await, Seen::End(0xA1), "a subscription identifier");

    for filters in [&["denied/x"][..], &many] {
        let cloud = Standin::start(config.clone()).await.unwrap();
        let mut raw = Raw::connected(cloud.address(), 4, "c").await;
        raw.send(&subscribe(4, 1, filters)).await;
        assert_eq!(seen(&mut raw).await, Seen::End(0), "{filters:?}");
    }
}

#[tokio::test]
async fn publishes_over_the_rate_have_the_configured_outcome() {
    use RateOutcome::{Answer97, AsAws, Disconnect, Silent};
    for (version, outcome, expected) in [
        (5, AsAws, Seen::Puback(0x97)),
        (4, AsAws, Seen::Nothing),
        (5, Silent, Seen::Nothing),
        (4, Answer97, Seen::Nothing),
        (5, Disconnect, Seen::End(0x97)),
        (4, Disconnect, Seen::End(0)),
    ] {
        let rates = Rates {
            publishes: Some(1),
            publishes_outcome: outcome,
            ..Rates::default()
        };
        let cloud = Standin::start(StandinConfig {
            rates,
            ..StandinConfig::default()
        })
        .await
        .unwrap();
        let mut raw = Raw::connected(cloud.address(), version, "c").await;
        let mut both = publish(version, "t", b"a", 2, 1);
        both.extend(publish(version, "t", b"b", 2, 2));
        raw.send(&both).await;
        raw.expect_puback(1, 0).await;
        assert_eq!(seen(&mut raw).await, expected, "{outcome:?} on {version}");
        assert_eq!((cloud.ledger().count(), cloud.stats().throttled), (1, 1));
        assert_eq!(cloud.violation_count(), 0, "a limit tighter than AWS's is not the client's fault");
    }
}

#[tokio::test]
async fn bytes_over_the_rate_are_delayed_not_lost() {
    let rates = Rates {
        bytes: Some(1000),
        ..Rates::default()
    };
    let cloud = Standin::start(StandinConfig {
        rates,
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    let started = std::time::Instant::now();
    for id in 1..=3 {
        raw.publish("t", &[0; 490], 1, id).await;
    }
    for id in 1..=3 {
        raw.expect_puback(id, 0).await;
    }
    assert!(
        started.elapsed() >= Duration::from_millis(450),
        "1500 B at 1000 B/s after a second's worth: {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn the_switches_choose_between_what_aws_leaves_open() {
    let switches = Switches {
        undeliverable: Undeliverable::Disconnect,
        qos2: Qos2::Silence,
    };
    let cloud = Standin::start(StandinConfig {
        switches,
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    raw.publish("t", b"", 2, 1).await;
    assert_eq!(seen(&mut raw).await, Seen::Nothing);
    raw.publish(&"a/".repeat(8), b"", 1, 2).await;
    assert_eq!(seen(&mut raw).await, Seen::End(0x90));
}

#[tokio::test]
async fn a_client_that_connects_too_often_is_refused() {
    let limits = Limits {
        connect_interval: Some(Duration::from_secs(3600)),
        ..Limits::default()
    };
    let cloud = Standin::start(StandinConfig {
        limits,
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    let _first = Raw::connected(cloud.address(), 5, "c").await;
    let mut second = Raw::open(cloud.address(), 5).await;
    second.send(&connect(5, "c", 30)).await;
    assert_eq!(second.packet().await, Some(vec![0x20, 3, 0, 0x97, 0]));
    assert_eq!(cloud.violation_count(), 1);
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_acks_nothing() {
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let ledger = Arc::new(forebay_aws_standin::Ledger::open(Default::default(), full).unwrap());
    let cloud = Standin::start(StandinConfig {
        ledger: Some(ledger),
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    let mut raw = Raw::connected(cloud.address(), 5, "c").await;
    raw.publish("t", b"", 1, 1).await;
    assert_eq!(seen(&mut raw).await, Seen::End(0x83));
}
