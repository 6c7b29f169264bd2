//! What goes wrong names itself: each fault in `/metrics` with who and where, in `/status`, on the screen; and it ends with its cause.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use forebay_aws_standin::{Ledger, LedgerConfig, Standin, StandinConfig};
use forebay_broker::codec::{QoS, ReasonCode, Version};
use support::device::{Device, NotConnected};
use support::eventually;
use support::gateway::{Gateway, forebay};
use support::plant::Plant;
use support::scene::Scene;

const TOPIC: &str = "devices/d1/telemetry/env";

struct Site {
    gateway: Gateway,
    cloud: Standin,
    ledger: Arc<Ledger>,
    plant: Plant,
}

fn scene(plant: &Plant, cloud: SocketAddr) -> Scene {
    Scene::new("signals")
        .set("gateway", "survive", "{outage: 1m, rate: 1/s}")
        .listener("identity: \"{client_id}\"")
        .tls_listener(plant)
        .stream("name: telemetry, max_bytes: 32MiB")
        .route("from: \"devices/+/alarm\"")
        .route("from: \"devices/+/telemetry/#\"")
        .more(
            "watch:\n  - topic: devices/+/telemetry/#\n    every: 1s\n    sequence: {counter: /seq, boot: /boot}\n    \
             fields: [{at: /temp, range: [-40, 85]}]\n",
        )
        .cloud(cloud)
        .set("cloud", "canary", "1s")
}

async fn site() -> Site {
    let ledger = Arc::new(Ledger::new(LedgerConfig::default()));
    let cloud = Standin::start(StandinConfig {
        ledger: Some(Arc::clone(&ledger)),
        ..StandinConfig::default()
    })
    .await
    .unwrap();
    let plant = Plant::new(&["board-1"]);
    let mut gateway = scene(&plant, cloud.address()).gateway();
    gateway.start().await;
    Site {
        gateway,
        cloud,
        ledger,
        plant,
    }
}

impl Site {
    async fn connect(&self, name: &str) -> Device {
        Device::connect(self.gateway.listeners[0], name, Version::V5, true).await.unwrap()
    }

    /// Waits for a line of `/metrics` that begins so.
    async fn shows(&self, line: &str) {
        eventually(&format!("/metrics shows {line}"), || async {
            let (_, text) = self.gateway.get("/metrics").await?;
            text.lines().any(|found| found.starts_with(line)).then_some(())
        })
        .await;
    }

    /// Waits until no line of `/metrics` begins so.
    async fn shows_no_more(&self, line: &str) {
        eventually(&format!("/metrics shows {line} no more"), || async {
            let (_, text) = self.gateway.get("/metrics").await?;
            text.lines().all(|found| !found.starts_with(line)).then_some(())
        })
        .await;
    }

    /// Exit code and screen of `forebay status`.
    async fn screen(&self) -> (i32, String) {
        let url = format!("http://{}", self.gateway.admin);
        let (code, out, err) = forebay(&["status", "--url", &url], self.gateway.folder()).await;
        assert_eq!(err, "");
        (code, out)
    }
}

async fn say(device: &mut Device, topic: &str, seq: u64, boot: &str, temp: f64) {
    let payload = format!("{{\"device\":\"d1\",\"seq\":{seq},\"boot\":\"{boot}\",\"temp\":{temp}}}");
    device.publish(topic, payload.as_bytes(), QoS::AtLeastOnce, 1, false).await.unwrap();
    assert!(!device.puback().await.unwrap().is_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_does_wrong_is_named_and_ends_with_its_cause() {
    let mut site = site().await;
    let mut device = site.connect("d1").await;
    for seq in 1..=3 {
        say(&mut device, TOPIC, seq, "a", 20.0).await;
    }
    site.shows("forebay_watch_series 1").await;
    let topic = "topic=\"devices/d1/telemetry\"";
    let series = format!("{{device=\"d1\",{topic}");

    say(&mut device, TOPIC, 21, "a", 20.0).await;
    site.shows(&format!("forebay_device_missing{{device=\"d1\",range=\"4-20\",{topic}}} 17"))
        .await;
    say(&mut device, TOPIC, 21, "a", 20.0).await;
    site.shows(&format!("forebay_device_duplicates{series}}} 1")).await;
    say(&mut device, TOPIC, 10, "a", 20.0).await;
    site.shows(&format!("forebay_device_reordered{series}}} 1")).await;
    say(&mut device, TOPIC, 1, "b", 99.0).await;
    site.shows(&format!("forebay_device_restarts{series}}} 1")).await;
    let range = format!("forebay_field_out_of_range{{device=\"d1\",field=\"/temp\",{topic}}} 99");
    site.shows(&range).await;

    let silent = format!("forebay_device_silent_seconds{series}}} ");
    site.shows(&silent).await;
    let (code, screen) = site.screen().await;
    for words in [
        "d1 has sent nothing on `devices/d1/telemetry`",
        "/temp is 99, outside -40 to 85",
        "16 messages on `devices/d1/telemetry` are missing: 4-20",
    ] {
        let spaced = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(spaced.contains(words), "{words}: {screen}");
    }
    assert_eq!(code, 1);
    say(&mut device, TOPIC, 2, "b", 20.0).await;
    site.shows_no_more(&silent).await;
    site.shows_no_more(&range).await;
    for (name, count) in [
        ("forebay_silences_total", 1.0),
        ("forebay_sequence_gaps_total", 1.0),
        ("forebay_sequence_missing_total", 17.0),
        ("forebay_sequence_duplicates_total", 1.0),
        ("forebay_sequence_reordered_total", 1.0),
        ("forebay_device_restarts_total", 1.0),
        ("forebay_field_out_of_range_total", 1.0),
    ] {
        assert!(site.gateway.metric(name, &[]).await >= count, "{name}");
    }

    // What is known survives a stop: the gap across it is told, its history too.
    drop(device);
    assert_eq!(site.gateway.stop().await, 0);
    site.gateway.start().await;
    let mut device = site.connect("d1").await;
    say(&mut device, TOPIC, 5, "b", 20.0).await;
    site.shows(&format!("forebay_device_missing{{device=\"d1\",range=\"3-4\",{topic}}} "))
        .await;
    eventually("/status has the connections of both lives", || async {
        let status = site.gateway.status().await;
        let list = status["devices"]["list"].as_array()?;
        let history = list.iter().find(|device| device["identity"] == "d1")?["history"].as_array()?;
        let connects = history.iter().filter(|moment| moment["what"] == "connected").count();
        (connects == 2).then_some(())
    })
    .await;
    // After a kill the first number is taken as it comes.
    let gaps = site.gateway.metric("forebay_sequence_gaps_total", &[]).await;
    assert_eq!(gaps, 1.0);
    site.gateway.kill().await;
    site.gateway.start().await;
    let mut device = site.connect("d1").await;
    say(&mut device, TOPIC, 500, "b", 20.0).await;
    site.shows("forebay_watch_seen_total{watch=\"devices/+/telemetry/#\"} 1").await;
    assert_eq!(site.gateway.metric("forebay_sequence_gaps_total", &[]).await, 0.0);
    assert_eq!(site.gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn flaps_misspelt_topics_and_wrong_names_are_named() {
    let mut site = site().await;
    eventually("the first self-check has ended", || async {
        (site.gateway.metric("forebay_config_file", &["same"]).await == 1.0).then_some(())
    })
    .await;
    for (file, what) in [("server.pem", "certificate"), ("devices-ca.pem", "device_ca")] {
        let line = format!("forebay_expiry_seconds{{file=\"{}\",what=\"{what}\"}} ", site.plant.path(file));
        site.shows(&line).await;
    }
    site.shows("forebay_deadline_seconds{what=\"certificate\"} ").await;
    let (code, screen) = site.screen().await;
    assert!(code == 0 && screen.contains("Nothing is wrong"), "{screen}");
    let (_, page) = site.gateway.get("/").await.unwrap();
    assert!(page.contains("Nothing is wrong"), "{page}");

    for lost in 1..=3 {
        drop(site.connect("d2").await);
        // The next one would take the session over if this end had not been seen.
        site.shows(&format!("forebay_device_flaps_total{{reason=\"connection_lost\"}} {lost}"))
            .await;
    }
    site.shows("forebay_device_flaps{device=\"d2\",reason=\"connection_lost\"} 3").await;

    let mut device = site.connect("d1").await;
    say(&mut device, "devices/d1/telemetri/env", 1, "a", 20.0).await;
    site.shows("forebay_unrouted_topic_total{nearest=\"devices/+/telemetry/#\",topic=\"devices/d1/telemetri/env\"} 1")
        .await;
    site.shows("forebay_route_matched_total{route=\"devices/+/telemetry/#\"} 0").await;
    say(&mut device, TOPIC, 1, "a", 20.0).await;
    site.shows("forebay_route_matched_total{route=\"devices/+/telemetry/#\"} 1").await;
    site.shows("forebay_route_last_match_seconds{route=\"devices/+/telemetry/#\"} ")
        .await;
    site.shows_no_more("forebay_route_last_match_seconds{route=\"devices/+/alarm\"}")
        .await;

    let tls = site.plant.device("board-1");
    let refused = Device::connect_tls(site.gateway.listeners[1], "gateway.local", &tls, "x", Version::V5).await;
    assert!(
        matches!(refused, Err(NotConnected::Unreachable(_))),
        "our certificate is for localhost"
    );
    site.shows("forebay_wrong_name_total{name=\"gateway.local\"} 1").await;
    let (code, screen) = site.screen().await;
    assert!(
        code == 1 && screen.contains("devices dial `gateway.local`") && screen.contains("lost its connection 3 times"),
        "{screen}"
    );
    assert_eq!(site.gateway.stop().await, 0);
    let url = format!("http://{}", site.gateway.admin);
    let (code, _, err) = forebay(&["status", "--url", &url], site.gateway.folder()).await;
    assert!(code == 1 && err.contains("no gateway answers at"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_goes_the_whole_way_and_in_an_outage_one_waits() {
    let mut site = site().await;
    site.shows("forebay_canary_round_trip_seconds ").await;
    let arrived = site.ledger.payloads("signals/canary");
    assert!(arrived[0].starts_with(b"{\"gateway\":\"signals\",\"canary\":1}"), "{arrived:?}");
    assert!(site.gateway.metric("forebay_canary_bytes_total", &[]).await >= arrived[0].len() as f64);

    site.cloud.faults().stop_listening().await.unwrap();
    eventually("one has waited for some intervals", || async {
        (site.gateway.metric("forebay_canary_waiting_seconds", &[]).await > 3.5).then_some(())
    })
    .await;
    assert_eq!(site.gateway.waiting().await, 1, "one waits, not one for each interval");
    let acked = site.gateway.metric("forebay_canary_acked_total", &[]).await;
    assert_eq!(site.gateway.metric("forebay_canary_sent_total", &[]).await, acked + 1.0);
    assert_eq!(site.gateway.metric("forebay_canary_failed_total", &[]).await, 0.0);
    let (code, screen) = site.screen().await;
    assert!(code == 1 && screen.contains("WAITING FOR THE CLOUD"), "{screen}");

    site.cloud.faults().resume_listening().await.unwrap();
    eventually("it arrives", || async {
        (site.gateway.metric("forebay_canary_acked_total", &[]).await > acked).then_some(())
    })
    .await;
    let ledger = site.gateway.status().await["ledger"].clone();
    let count = |name: &str| ledger[name].as_u64().unwrap();
    assert_eq!(
        count("accepted"),
        count("delivered") + count("waiting"),
        "it is an ordinary record: {ledger}"
    );
    assert_eq!(site.gateway.metric("forebay_accepted_total", &[]).await, 0.0, "no device sent it");

    // No device gets into its route.
    let mut device = site.connect("signals").await;
    device.publish("signals/canary", b"x", QoS::AtLeastOnce, 1, false).await.unwrap();
    assert_eq!(device.puback().await, Some(ReasonCode::NOT_AUTHORIZED));
    assert_eq!(site.gateway.stop().await, 0);
    assert_eq!(site.cloud.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_the_screen_wants_the_token() {
    let mut gateway = Scene::new("far")
        .set("admin", "bind", "\"0.0.0.0:0\"")
        .set("admin", "token_file", "admin.token")
        .gateway();
    let token = gateway.folder().join("admin.token");
    std::fs::write(&token, "0123456789abcdef0123\n").unwrap();
    // What others may read is a problem, and a problem is exit code 1.
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    gateway.start().await;
    let url = format!("http://127.0.0.1:{}", gateway.admin.port());
    let (code, _, err) = forebay(&["status", "--url", &url], gateway.folder()).await;
    assert!(code == 1 && err.contains("--token-file"), "{err}");
    let with_token = ["status", "--url", &url, "--token-file", token.to_str().unwrap(), "--json"];
    let (code, out, err) = forebay(&with_token, gateway.folder()).await;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &status["gateway"], err.as_str()), (0, &"far".into(), ""), "{status}");
    let bind = format!("admin.bind={}", gateway.admin);
    let (code, out, _) = forebay(&["status", "--set", &bind], gateway.folder()).await;
    assert!(
        code == 0 && out.contains("no cloud is configured"),
        "the configuration names listener and token: {out}"
    );
    assert_eq!(gateway.get("/").await.unwrap().0, 401);
    assert_eq!(gateway.stop().await, 0);
}
