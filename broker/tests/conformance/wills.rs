//! Sections 3.1.2.5 and 3.1.3.2: wills.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use forebay_broker::Disconnection;
use forebay_broker::codec::{Connect, Packet, Property, Publish, Text, Will};

use crate::support::{Bench, Client, connect_5, publish, will};
use crate::{BOTH, OK, connected, goodbye, travelling};

fn leaving(base: fn(&str) -> Connect, name: &str, will: Will) -> Connect {
    Connect {
        will: Some(will),
        ..base(name)
    }
}

async fn watcher(bench: &Bench, filter: &str) -> Client {
    let mut watcher = connected(bench, connect_5("watcher")).await;
    watcher.subscribe(1, filter).await;
    watcher
}

/// Nothing else comes before this message of its own.
async fn expect_nothing_more(watcher: &mut Client) {
    watcher.send(&publish("here/last", 0, None)).await;
    assert_eq!(watcher.text().await.0, "here/last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_without_retain_is_not_retained() {
    let bench = Bench::new().await;
    for base in BOTH {
        for topic in ["here/w", "cloud/w", "nowhere/w"] {
            let mut watcher = watcher(&bench, "#").await;
            drop(connected(&bench, leaving(base, "d", will(topic, 1, None))).await);
            let got = watcher.message().await;
            assert_eq!((got.topic.as_str(), got.retain), (topic, false));
            let mut later = connected(&bench, connect_5("later")).await;
            later.subscribe(1, topic).await;
            later.ping().await;
            // Nor does it take the place of what is.
            let kept = Publish {
                retain: true,
                topic: Text::from(topic.to_owned()),
                payload: Bytes::from_static(b"kept"),
                ..Publish::default()
            };
            later.send(&Packet::Publish(kept.clone())).await;
            assert_eq!(later.text().await.1, "kept");
            drop(connected(&bench, leaving(base, "d", will(topic, 1, None))).await);
            assert_eq!(later.text().await.1, "gone");
            later.subscribe(2, topic).await;
            assert_eq!(later.text().await.1, "kept");
            let nothing = Publish {
                payload: Bytes::new(),
                ..kept
            };
            later.send(&Packet::Publish(nothing)).await;
            assert_eq!(later.text().await.1, "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_is_published_once() {
    let bench = Bench::new().await;
    for base in BOTH {
        let mut watcher = watcher(&bench, "here/#").await;
        drop(connected(&bench, leaving(base, "d", will("here/w", 1, None))).await);
        assert_eq!(watcher.text().await.0, "here/w");
        // The session goes on without one.
        let before = bench.view.stats().disconnected(Disconnection::ConnectionLost);
        let again = Connect {
            clean_start: false,
            ..base("d")
        };
        drop(connected(&bench, again).await);
        bench
            .until("it is lost again", |view| {
                view.stats().disconnected(Disconnection::ConnectionLost) > before
            })
            .await;
        expect_nothing_more(&mut watcher).await;
        // DISCONNECT removes it, too.
        let mut device = connected(&bench, leaving(base, "d", will("here/w", 1, None))).await;
        device.send(&goodbye()).await;
        assert_eq!(device.receive().await, None);
        expect_nothing_more(&mut watcher).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_will_is_published_where_none_was_left() {
    let bench = Bench::new().await;
    let mut watcher = watcher(&bench, "#").await;
    for (round, base) in BOTH.into_iter().enumerate() {
        let before = bench.view.stats().disconnected(Disconnection::ConnectionLost);
        drop(connected(&bench, base("d")).await);
        bench
            .until("it is lost", |view| {
                view.stats().disconnected(Disconnection::ConnectionLost) > before
            })
            .await;
        // Taken over, and refused for what it sends.
        let old = connected(&bench, base("d")).await;
        let mut new = connected(&bench, base("d")).await;
        drop(old);
        new.send_raw(&[0x00, 0x00]).await;
        while new.receive().await.is_some() {}
        expect_nothing_more(&mut watcher).await;
        assert_eq!(bench.view.stats().accepted.load(Ordering::Relaxed), round as u64 + 1, "but its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_keeps_its_properties_in_order() {
    let bench = Bench::new().await;
    let user = |name: &'static str, value: &'static str| Property::User((Text::from_static(name), Text::from_static(value)));
    let sent = travelling(&[
        user("b", "1"),
        Property::PayloadFormat(true),
        user("a", "2"),
        Property::ContentType(Text::from_static("text/plain")),
        user("b", "1"),
        Property::ResponseTopic(Text::from_static("here/answer")),
        Property::CorrelationData(Bytes::from_static(b"\0\xff")),
        user("", ""),
    ]);
    for topic in ["here/w", "cloud/w", "nowhere/w"] {
        let mut watcher = watcher(&bench, topic).await;
        let mut will = will(topic, 1, None);
        will.properties.travelling = sent.clone();
        will.retain = true;
        drop(connected(&bench, leaving(connect_5, "d", will)).await);
        assert_eq!(watcher.message().await.properties.travelling, sent);
        // And as it is kept.
        let codes = watcher.subscribe_with(2, &[topic], Default::default(), None).await;
        assert_eq!(codes, [OK]);
        assert_eq!(watcher.message().await.properties.travelling, sent);
    }
}
