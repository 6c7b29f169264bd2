//! Sections 3.8 to 3.11 and 4.7: subscriptions and topics.

use bytes::Bytes;
use forebay_broker::codec::{Ack, Packet, Publish, QoS, ReasonCode, RetainHandling, SubAck, SubscribeOptions, Text, UnsubAck, Version};
use tokio::sync::Semaphore;

use crate::support::{Bench, Client, Setup, connect_5, id, publish, rule};
use crate::{BOTH, OK, connected, subscribe_packet, unsubscribe_packet};

fn at(qos: u8) -> SubscribeOptions {
    SubscribeOptions {
        qos: QoS::from_level(qos).unwrap(),
        ..SubscribeOptions::default()
    }
}

async fn suback(client: &mut Client) -> SubAck {
    match client.receive().await {
        Some(Packet::SubAck(suback)) => suback,
        other => panic!("SUBACK was due, not {other:?}"),
    }
}

async fn unsubscribed(client: &mut Client, packet_id: u16, filters: &[&str]) -> UnsubAck {
    client.send(&unsubscribe_packet(packet_id, filters)).await;
    match client.receive().await {
        Some(Packet::UnsubAck(unsuback)) => {
            assert_eq!(unsuback.packet_id.get(), packet_id);
            unsuback
        }
        other => panic!("UNSUBACK was due, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_at_the_lower_of_its_qos_and_the_granted_one() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut client = connected(&bench, base("c")).await;
        for asked in 0..=2 {
            let mut subscriber = connected(&bench, base("s")).await;
            let codes = subscriber.subscribe_with(1, &["#"], at(asked), None).await;
            let granted = codes[0].value();
            assert!(granted <= asked, "{granted} of {asked}");
            for area in ["cloud", "here", "nowhere"] {
                for qos in 0..=2 {
                    client.send(&publish(&format!("{area}/x"), qos, (qos > 0).then_some(1))).await;
                    if qos > 0 {
                        client.expect_ack(1, OK).await;
                    }
                    if qos == 2 {
                        client.send(&crate::pubrel(1)).await;
                        client.expect_ack(1, OK).await;
                    }
                    let got = subscriber.message().await;
                    assert_eq!(got.qos.level(), qos.min(granted), "{area} at {qos}, asked {asked}");
                    assert_eq!((got.dup, got.packet_id.is_some()), (false, got.qos.level() > 0));
                    match (got.qos, got.packet_id) {
                        (QoS::AtLeastOnce, Some(packet_id)) => subscriber.send(&Packet::PubAck(Ack::new(packet_id, OK))).await,
                        (QoS::ExactlyOnce, Some(packet_id)) => {
                            subscriber.send(&Packet::PubRec(Ack::new(packet_id, OK))).await;
                            subscriber.expect(&Packet::PubRel(Ack::new(packet_id, OK))).await;
                            subscriber.send(&Packet::PubComp(Ack::new(packet_id, OK))).await;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_replaced_loses_and_doubles_no_message() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut subscriber = connected(&bench, base("s")).await;
        subscriber.subscribe(1, "here/#").await;
        let mut client = connected(&bench, base("c")).await;
        // So few are on their way that none is dropped at the bounds of QoS 0.
        let on_their_way = Semaphore::new(50);
        let sending = async {
            for number in 0..600 {
                on_their_way.acquire().await.unwrap().forget();
                client.send(&publish(&format!("here/{number}"), 0, None)).await;
            }
        };
        let receiving = async {
            let mut got = 0;
            let mut answers = 0;
            while got < 600 || answers < 60 {
                match subscriber.receive().await {
                    Some(Packet::Publish(message)) => {
                        assert_eq!(message.topic.as_str(), format!("here/{got}"));
                        got += 1;
                        on_their_way.add_permits(1);
                        if got % 10 == 0 {
                            let options = SubscribeOptions {
                                retain_as_published: got % 20 == 0 && subscriber.version == Version::V5,
                                ..SubscribeOptions::default()
                            };
                            subscriber.send(&subscribe_packet(2, &[("here/#", options)])).await;
                        }
                    }
                    Some(Packet::SubAck(suback)) => {
                        assert_eq!(suback.codes, [OK]);
                        answers += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::join!(sending, receiving);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_filters_in_one_packet_are_as_many_packets() {
    let setup = Setup {
        rules: vec![rule("*", &["#"], &["here/#"], &[])],
        ..Setup::default()
    };
    let bench = Bench::start(setup).await;
    for base in BOTH {
        let mut client = connected(&bench, base("c")).await;
        for name in ["a", "b"] {
            let kept = Publish {
                retain: true,
                qos: QoS::AtLeastOnce,
                packet_id: Some(id(1)),
                topic: Text::from(format!("here/{name}")),
                payload: Bytes::from_static(b"kept"),
                ..Publish::default()
            };
            client.send(&Packet::Publish(kept)).await;
            client.expect_ack(1, OK).await;
        }
        let filters = ["here/a", "denied", "here/+", "here/#/", "here/b"];
        let mut one = connected(&bench, base("one")).await;
        one.send(&subscribe_packet(300, &filters.map(|filter| (filter, at(0))))).await;
        let together = suback(&mut one).await;
        assert_eq!(together.packet_id.get(), 300);
        let mut many = connected(&bench, base("many")).await;
        let mut apart = Vec::new();
        let mut kept = [Vec::new(), Vec::new()];
        for (number, filter) in (1..).zip(filters) {
            many.send(&subscribe_packet(number, &[(filter, at(0))])).await;
            let answer = suback(&mut many).await;
            assert_eq!(answer.packet_id.get(), number);
            apart.extend(answer.codes);
            many.send(&Packet::PingReq).await;
            while let Some(Packet::Publish(message)) = many.receive().await {
                kept[0].push((message.topic, message.retain));
            }
        }
        one.send(&Packet::PingReq).await;
        while let Some(Packet::Publish(message)) = one.receive().await {
            kept[1].push((message.topic, message.retain));
        }
        assert_eq!(together.codes, apart);
        assert_eq!(kept[0].len(), 4, "two by their names, and two by the wildcard");
        assert_eq!(kept[0], kept[1]);

        let removed = ["here/+", "here/never", "here/a", "here/+"];
        let together = unsubscribed(&mut one, 400, &removed).await.codes;
        let mut apart = Vec::new();
        for (number, filter) in (10..).zip(removed) {
            apart.extend(unsubscribed(&mut many, number, &[filter]).await.codes);
        }
        assert_eq!(together, apart);
        let is_five = base("c").version == Version::V5;
        let none = ReasonCode::NO_SUBSCRIPTION_EXISTED;
        assert_eq!(together, if is_five { vec![OK, none, OK, none] } else { vec![] });
        for topic in ["here/a", "here/b"] {
            client.send(&publish(topic, 0, None)).await;
        }
        for subscriber in [&mut one, &mut many] {
            assert_eq!(subscriber.text().await.0, "here/b");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsubscribe_compares_filters_byte_by_byte() {
    let bench = Bench::new().await;
    let filters = ["here/a", "here/+", "here/A", "here/a/", "+/a", "here/a/#", "here/\u{e9}"];
    let never = [
        "here/b",
        "here",
        "HERE/a",
        "#",
        "here//a",
        "/here/a",
        "here/#",
        "+/+",
        "here/e\u{301}",
        "here/a#",
        "",
    ];
    for base in BOTH {
        for removed in filters {
            let mut client = connected(&bench, base("c")).await;
            for (number, filter) in (1..).zip(filters) {
                client.subscribe(number, filter).await;
            }
            // Those that it does not have are answered, and change nothing.
            for filter in never {
                let answer = unsubscribed(&mut client, 50, &[filter]).await;
                if client.version == Version::V5 {
                    assert!(answer.codes == [ReasonCode::NO_SUBSCRIPTION_EXISTED], "{filter:?}: {answer:?}");
                }
            }
            unsubscribed(&mut client, 60, &[removed]).await;
            // Only its own is gone.
            for filter in filters {
                let answer = unsubscribed(&mut client, 70, &[filter]).await;
                if client.version == Version::V5 {
                    let expected = if filter == removed {
                        ReasonCode::NO_SUBSCRIPTION_EXISTED
                    } else {
                        OK
                    };
                    assert_eq!(answer.codes, [expected], "{filter} after {removed}");
                }
                client.send(&publish("here/a/x", 0, None)).await;
                let is_there = removed != "here/a/#" && filters.iter().position(|one| *one == filter) < Some(5);
                if is_there {
                    assert_eq!(client.text().await.0, "here/a/x", "{filter} after {removed}");
                }
                client.ping().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_matched_without_normalization() {
    let bench = Bench::new().await;
    // Composed and not, compatibility forms, upper and lower case, and separators.
    let topics = [
        "here/\u{e9}",
        "here/e\u{301}",
        "here/\u{c5}",
        "here/\u{212b}",
        "here/A\u{30a}",
        "here/\u{fb01}",
        "here/fi",
        "here/FI",
        "here/x",
        "here/X",
        "here/x/",
        "here//x",
        "/here/x",
        "here/x ",
        "here/ x",
        "here/%78",
        "here/\u{ff58}",
        "here/.",
        "here/x/..",
        "HERE/x",
    ];
    let mut subscriber = connected(&bench, connect_5("s")).await;
    let mut old = connected(&bench, crate::support::connect_311("old")).await;
    for (number, topic) in (1..).zip(topics) {
        let codes = subscriber.subscribe_with(number, &[topic], at(0), Some(number.into())).await;
        assert_eq!(codes, [OK], "{topic:?}");
        old.subscribe(number, topic).await;
    }
    let mut client = connected(&bench, connect_5("c")).await;
    for (number, topic) in (1..).zip(topics) {
        let kept = Publish {
            retain: true,
            topic: Text::from(topic),
            payload: Bytes::from_static(b"kept"),
            ..Publish::default()
        };
        client.send(&Packet::Publish(kept)).await;
        let got = subscriber.message().await;
        assert_eq!(got.topic.as_str(), topic);
        let ids: Vec<u32> = got.properties.subscription_ids.iter().map(|id| id.get()).collect();
        assert_eq!(ids, [number], "{topic:?}");
        assert_eq!(old.text().await.0, topic);
    }
    let mut later = connected(&bench, connect_5("later")).await;
    for topic in topics {
        later.subscribe(1, topic).await;
        assert_eq!(later.text().await.0, topic);
        later.ping().await;
    }
}

const GOOD_FILTERS: [&str; 11] = ["#", "+", "/", "a", "a/#", "+/#", "/#", "+/+", "/+", "a/+/b", "a/+/#"];
const BAD_FILTERS: [&str; 12] = ["a#", "#a", "#/a", "a/#/b", "##", "#/", "a+", "+a", "a/+b", "a+/b", "++", "a/b#"];

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_stand_in_filters_only_and_only_where_they_may() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut client = connected(&bench, base("c")).await;
        for filter in GOOD_FILTERS {
            client.subscribe(1, filter).await;
        }
        for filter in BAD_FILTERS {
            let expected = if client.version == Version::V5 {
                ReasonCode::TOPIC_FILTER_INVALID
            } else {
                ReasonCode::UNSPECIFIED_ERROR
            };
            let codes = client.subscribe_with(1, &[filter], at(0), None).await;
            assert_eq!(codes, [expected], "{filter}");
        }
        for topic in GOOD_FILTERS.iter().chain(&BAD_FILTERS).filter(|topic| topic.contains(['+', '#'])) {
            for qos in [0, 1, 2] {
                let mut client = connected(&bench, base("p")).await;
                client.send(&publish(topic, qos, (qos > 0).then_some(1))).await;
                client.expect_end(ReasonCode::TOPIC_NAME_INVALID).await;
            }
        }
        client.ping().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_has_a_code_of_the_table_in_its_place() {
    let setup = Setup {
        rules: vec![rule("*", &["#"], &["#"], &["secret/#"])],
        ..Setup::default()
    };
    let bench = Bench::start(setup).await;
    for base in BOTH {
        let mut client = connected(&bench, base("c")).await;
        let is_five = client.version == Version::V5;
        for round in 0..20_usize {
            let mut filters = Vec::new();
            let mut is_good = Vec::new();
            for place in 0..15 {
                let number = round * 7 + place * 5;
                let (filter, good) = match (round + place) % 4 {
                    0 => (BAD_FILTERS[number % 12], false),
                    1 => ("secret/a", false),
                    _ => (GOOD_FILTERS[number % 11], true),
                };
                filters.push((filter, at((number % 3) as u8)));
                is_good.push(good);
            }
            client.send(&subscribe_packet(1 + round as u16, &filters)).await;
            let answer = suback(&mut client).await;
            assert_eq!(answer.packet_id.get(), 1 + round as u16);
            assert_eq!(answer.codes.len(), filters.len());
            for ((code, good), (filter, options)) in answer.codes.iter().zip(is_good).zip(&filters) {
                match good {
                    // A filter that stands twice is granted as its last place says.
                    true => assert!(code.value() <= 2, "{filter} {options:?}: {code}"),
                    false if is_five => assert!(
                        [ReasonCode::TOPIC_FILTER_INVALID, ReasonCode::NOT_AUTHORIZED].contains(code),
                        "{filter}: {code}"
                    ),
                    false => assert_eq!(code.value(), 0x80, "{filter}"),
                }
            }
        }
    }
    // What an option says goes no further than its own filter.
    let mut client = connected(&bench, connect_5("c")).await;
    let silent = SubscribeOptions {
        retain_handling: RetainHandling::DoNotSend,
        ..SubscribeOptions::default()
    };
    let kept = Publish {
        retain: true,
        topic: Text::from_static("here/a"),
        payload: Bytes::from_static(b"kept"),
        ..Publish::default()
    };
    client.send(&Packet::Publish(kept)).await;
    client
        .send(&subscribe_packet(1, &[("here/a", silent), ("+/a", at(0)), ("here/#", silent)]))
        .await;
    assert_eq!(suback(&mut client).await.codes, [OK; 3]);
    assert_eq!(client.text().await.0, "here/a");
    client.ping().await;
}
