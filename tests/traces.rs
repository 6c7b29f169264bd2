//! Traces judged by a collector: parents, links and ids from publish to the cloud's ack, also across a SIGKILL.
#![allow(clippy::unwrap_used)]

#[path = "support/collector.rs"]
mod collector;
mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use collector::{Collector, attribute};
use forebay_aws_standin::{Standin, StandinConfig};
use forebay_broker::codec::{QoS, ReasonCode, Version};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use ring::digest::{SHA256, digest};
use support::device::Device;
use support::eventually;
use support::gateway::Gateway;
use support::scene::Scene;

fn scene(cloud: SocketAddr, collector: SocketAddr, sample: &str) -> Scene {
    Scene::new("traced")
        .route("from: \"devices/#\", to: \"{topic}\", stream: telemetry")
        .cloud(cloud)
        .set("admin", "otlp", format!("{{endpoint: \"http://{collector}\", sample: {sample}}}"))
}

/// Publishes `count` messages of a new device and waits for their acks.
async fn publish(gateway: &Gateway, count: u16) {
    let mut device = Device::connect(gateway.listeners[0], "board-1", Version::V5, true).await.unwrap();
    for id in 1..=count {
        device
            .publish("devices/board-1/env", b"{}", QoS::AtLeastOnce, id, false)
            .await
            .unwrap();
    }
    for _ in 0..count {
        assert_eq!(device.puback().await, Some(ReasonCode::SUCCESS));
    }
}

async fn cloud() -> Standin {
    Standin::start(StandinConfig::default()).await.unwrap()
}

/// Waits until the collector has so many spans of a name.
async fn has(collector: &Collector, name: &str, count: usize) -> Vec<Span> {
    eventually(&format!("{count} spans `{name}`"), || async {
        let spans: Vec<_> = collector.spans().into_iter().filter(|span| span.name == name).collect();
        (spans.len() >= count).then_some(spans)
    })
    .await
}

/// All ids of a span are those that its record's id gives, and its parent is its record's publish.
fn belongs_to_its_record(span: &Span) {
    let id = attribute(span, "forebay.id").unwrap();
    let expected = digest(&SHA256, id.as_bytes());
    let expected = expected.as_ref();
    assert_eq!(span.trace_id, &expected[..16], "{id}");
    match span.name.as_str() {
        "publish" => assert_eq!(
            (span.span_id.as_slice(), span.parent_span_id.as_slice()),
            (&expected[16..24], &[][..]),
            "{id}"
        ),
        "commit" => assert_eq!(
            (span.span_id.as_slice(), span.parent_span_id.as_slice()),
            (&expected[24..], &expected[16..24]),
            "{id}"
        ),
        _ => {
            assert_eq!(span.parent_span_id, &expected[16..24], "{id}");
            assert_eq!(span.span_id.len(), 8);
        }
    }
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_has_its_spans_from_publish_to_the_clouds_ack() {
    let (cloud, collector) = (cloud().await, Collector::start().await);
    let mut gateway = scene(cloud.address(), collector.address, "100%").gateway();
    gateway.start().await;
    publish(&gateway, 5).await;

    let clouds = has(&collector, "cloud", 5).await;
    has(&collector, "wait", 5).await;
    let publishes = has(&collector, "publish", 5).await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 20, "four of each record");
    spans.iter().for_each(belongs_to_its_record);
    for publish in &publishes {
        assert_eq!(publish.kind(), SpanKind::Server);
        assert_eq!(attribute(publish, "forebay.device").as_deref(), Some("board-1"));
        assert_eq!(
            attribute(publish, "messaging.destination.name").as_deref(),
            Some("devices/board-1/env")
        );
        assert_eq!(attribute(publish, "mqtt.acked").as_deref(), Some("true"));
        let of_it = |name: &str| {
            spans
                .iter()
                .find(|span| span.name == name && span.trace_id == publish.trace_id)
                .unwrap()
        };
        let (commit, cloud) = (of_it("commit"), of_it("cloud"));
        assert!(commit.start_time_unix_nano >= publish.start_time_unix_nano && commit.end_time_unix_nano <= publish.end_time_unix_nano);
        let links: Vec<_> = cloud.links.iter().map(|link| (&link.trace_id, &link.span_id)).collect();
        assert_eq!(links, [(&commit.trace_id, &commit.span_id)]);
        assert_eq!(attribute(of_it("wait"), "forebay.route").as_deref(), Some("devices/#"));
    }
    assert!(
        clouds
            .iter()
            .all(|span| attribute(span, "mqtt.puback.code").as_deref() == Some("0"))
    );
    eventually("the spans are counted", || async {
        (gateway.metric("forebay_trace_spans_total", &["outcome=\"exported\""]).await == 20.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("forebay_trace_spans_total", &[]).await, 20.0, "none was dropped");
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_after_a_sigkill() {
    let (cloud, collector) = (cloud().await, Collector::start().await);
    cloud.faults().stop_listening().await.unwrap();
    let mut gateway = scene(cloud.address(), collector.address, "100%").gateway();
    gateway.start().await;
    publish(&gateway, 3).await;
    let publishes = has(&collector, "publish", 3).await;
    has(&collector, "commit", 3).await;
    assert_eq!(collector.spans().len(), 6, "nothing was sent yet");

    gateway.kill().await;
    cloud.faults().resume_listening().await.unwrap();
    gateway.start().await;

    let clouds = has(&collector, "cloud", 3).await;
    let waits = has(&collector, "wait", 3).await;
    let spans = collector.spans();
    spans.iter().for_each(belongs_to_its_record);
    for publish in &publishes {
        for later in [&clouds, &waits] {
            let of_it = later
                .iter()
                .filter(|span| span.trace_id == publish.trace_id && span.parent_span_id == publish.span_id);
            assert_eq!(of_it.count(), 1, "the second process goes on where the first ended");
        }
        let wait = waits.iter().find(|span| span.trace_id == publish.trace_id).unwrap();
        // The record holds milliseconds.
        assert!(
            wait.start_time_unix_nano.abs_diff(publish.start_time_unix_nano) < 100_000_000,
            "it waits since it was accepted"
        );
        assert!(wait.end_time_unix_nano > publish.end_time_unix_nano);
    }
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_shows_as_a_try_without_an_answer() {
    let (cloud, collector) = (cloud().await, Collector::start().await);
    cloud.faults().drop_pubacks(forebay_aws_standin::Which::Next(1));
    let mut gateway = scene(cloud.address(), collector.address, "100%").gateway();
    gateway.start().await;
    publish(&gateway, 1).await;
    eventually("the cloud has it", || async { (cloud.ledger().count() == 1).then_some(()) }).await;
    cloud.faults().cut_all(forebay_aws_standin::Cut::Reset);

    let clouds = has(&collector, "cloud", 2).await;
    assert_eq!(clouds[0].trace_id, clouds[1].trace_id);
    assert_ne!(clouds[0].span_id, clouds[1].span_id);
    let outcome = |span: &Span| (span.status.clone().unwrap_or_default().code(), attribute(span, "mqtt.puback.code"));
    assert_eq!(outcome(&clouds[0]), (StatusCode::Error, None));
    assert_eq!(outcome(&clouds[1]), (StatusCode::Unset, Some("0".to_owned())));
    has(&collector, "wait", 1).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_traced_whole_or_not_at_all() {
    const COUNT: u16 = 400;
    let (cloud, collector) = (cloud().await, Collector::start().await);
    let mut gateway = scene(cloud.address(), collector.address, "10%").gateway();
    gateway.start().await;
    publish(&gateway, COUNT).await;
    gateway.drained().await;
    // The end sends what still waits.
    assert_eq!(gateway.stop().await, 0);
    let spans = collector.spans();
    spans.iter().for_each(belongs_to_its_record);
    let of = |name: &str| spans.iter().filter(|span| span.name == name).count();
    let traced = of("publish");
    assert!((10..=90).contains(&traced), "{traced} of {COUNT}");
    assert_eq!((of("commit"), of("wait"), of("cloud")), (traced, traced, traced));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_traces_the_records_that_the_first_one_traced() {
    const COUNT: u16 = 400;
    let (cloud, collector) = (cloud().await, Collector::start().await);
    cloud.faults().stop_listening().await.unwrap();
    let mut gateway = scene(cloud.address(), collector.address, "10%").gateway();
    gateway.start().await;
    publish(&gateway, COUNT).await;
    assert_eq!(gateway.stop().await, 0);

    cloud.faults().resume_listening().await.unwrap();
    gateway.start().await;
    gateway.drained().await;
    assert_eq!(gateway.stop().await, 0);
    let spans = collector.spans();
    let of = |name: &str| -> BTreeSet<_> { spans.iter().filter(|span| span.name == name).map(|span| &span.trace_id).collect() };
    assert!(of("publish").len() >= 10, "{} of {COUNT}", of("publish").len());
    for name in ["commit", "wait", "cloud"] {
        assert_eq!(of(name), of("publish"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_spans_are_dropped_and_counted_and_nothing_waits() {
    const COUNT: u16 = 1000;
    let cloud = cloud().await;
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let mut gateway = scene(cloud.address(), nobody, "100%").gateway();
    gateway.start().await;
    publish(&gateway, COUNT).await;
    publish(&gateway, COUNT).await;
    gateway.drained().await;
    eventually("every span is counted as dropped", || async {
        let dropped = gateway.metric("forebay_trace_spans_total", &[]).await;
        (dropped == 8.0 * f64::from(COUNT)).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("forebay_trace_spans_total", &["outcome=\"exported\""]).await, 0.0);
    assert_eq!(gateway.stop().await, 0);
    let log = gateway.log();
    assert_eq!(log.matches("does not accept traces").count(), 1, "said once: {log}");
}
