//! Parts we did not write: Debian's Mosquitto clients as devices, and its broker as the cloud.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use forebay_aws_standin::{Standin, StandinConfig};
use support::eventually;
use support::gateway::Gateway;
use support::plant::Plant;
use support::program::{Running, program, run};
use support::scene::Scene;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

const BOARD: &str = "board-1";
const OTHER: &str = "board-2";
/// As mosquitto clients name the versions.
const VERSIONS: [&str; 2] = ["311", "5"];

fn mosquitto_pub() -> PathBuf {
    program("mosquitto_pub", "mosquitto-clients")
}

fn mosquitto_sub() -> PathBuf {
    program("mosquitto_sub", "mosquitto-clients")
}

/// A TLS listener, a loopback listener whose clients are `local`, a cloud.
fn scene(plant: &Plant) -> Scene {
    Scene::new("interop")
        .tls_listener(plant)
        .listener("identity: local")
        .route("from: \"devices/+/telemetry\", to: \"dt/{device}/{1}\", stream: telemetry")
        .route("from: \"devices/+/commands/#\", local: true")
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(ToString::to_string).collect()
}

/// Dials the TLS listener by name with a device's certificate.
fn over_tls(gateway: &Gateway, plant: &Plant, device: &str) -> Vec<String> {
    let (ca, cert, key) = (
        plant.path("devices-ca.pem"),
        plant.path(&format!("{device}.pem")),
        plant.path(&format!("{device}.key")),
    );
    let port = gateway.listeners[0].port().to_string();
    owned(&["-h", "localhost", "-p", &port, "--cafile", &ca, "--cert", &cert, "--key", &key])
}

fn on_loopback(gateway: &Gateway) -> Vec<String> {
    owned(&["-h", "127.0.0.1", "-p", &gateway.listeners[1].port().to_string()])
}

/// Publishes with a random client id; the program ends with 0 only when its publish was answered as its QoS wants.
async fn publishes(line: &[String], version: &str, qos: &str, topic: &str, payload: &str) {
    let mut arguments = line.to_vec();
    arguments.extend(owned(&["-V", version, "-q", qos, "-t", topic, "-m", payload]));
    let output = run(&mosquitto_pub(), &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(
        output.status.success(),
        "mosquitto_pub -V {version} -q {qos} -t {topic}: {output:?}"
    );
}

/// Subscribes with a random client id, and waits until that is granted.
async fn subscribes(line: &[String], version: &str, filter: &str) -> Running {
    subscribes_at(line, version, "1", filter, "MESSAGE %t %p").await
}

/// The same at this QoS, and writing messages in this format.
async fn subscribes_at(line: &[String], version: &str, qos: &str, filter: &str, format: &str) -> Running {
    let mut arguments = line.to_vec();
    arguments.extend(owned(&["-V", version, "-q", qos, "-t", filter, "-d", "-F", format]));
    let mut subscriber = Running::start(&mosquitto_sub(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    subscriber
        .says("Subscribed", |said| said.iter().any(|line| line.contains("Subscribed")))
        .await;
    subscriber
}

fn payload(device: &str, seq: usize) -> String {
    format!(r#"{{"device":"{device}","seq":{seq}}}"#)
}

/// Debian's broker as a cloud that demands mutual TLS, on a port that stays the same from life to life.
struct Cloud {
    plant: Plant,
    folder: TempDir,
    port: u16,
}

impl Cloud {
    async fn new() -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
        let cloud = Self {
            plant: Plant::new(&["gateway", "observer"]),
            folder: tempfile::tempdir().unwrap(),
            port,
        };
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nallow_anonymous true\nlog_dest stdout\nlog_type error\n",
            cloud.plant.path("devices-ca.pem"),
            cloud.plant.path("server.pem"),
            cloud.plant.path("server.key")
        );
        std::fs::write(cloud.folder.path().join("mosquitto.conf"), text).unwrap();
        cloud
    }

    async fn start(&self) -> Running {
        let config = self.folder.path().join("mosquitto.conf");
        let broker = Running::start(&program("mosquitto", "mosquitto"), &["-c", &config.display().to_string()]);
        eventually("mosquitto listens", || async {
            TcpStream::connect(("127.0.0.1", self.port)).await.ok()
        })
        .await;
        broker
    }

    /// The gateway's `cloud`.
    /// A gateway with this cloud.
    fn scene(&self, plant: &Plant, protocol: &str) -> Scene {
        let (ca, certificate, key) = (
            self.plant.path("devices-ca.pem"),
            self.plant.path("gateway.pem"),
            self.plant.path("gateway.key"),
        );
        scene(plant)
            .cloud_on(self.port)
            .set("cloud", "endpoint", "localhost")
            .set("cloud", "protocol", format!("\"{protocol}\""))
            .set("cloud", "tls", format!("{{ca: {ca}, certificate: {certificate}, key: {key}}}"))
    }

    async fn observer(&self) -> Running {
        let (ca, cert, key) = (
            self.plant.path("devices-ca.pem"),
            self.plant.path("observer.pem"),
            self.plant.path("observer.key"),
        );
        let line = owned(&[
            "-h",
            "localhost",
            "-p",
            &self.port.to_string(),
            "--cafile",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
        ]);
        subscribes(&line, "5", "dt/#").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_pub_is_a_device_at_every_version_and_qos_with_a_certificate_or_on_loopback() {
    let plant = Plant::new(&[BOARD]);
    let cloud = Standin::start(StandinConfig::default()).await.unwrap();
    let mut gateway = scene(&plant).cloud(cloud.address()).gateway();
    gateway.start().await;

    let mut sent = Vec::new();
    for (line, device) in [(over_tls(&gateway, &plant, BOARD), BOARD), (on_loopback(&gateway), "local")] {
        for version in VERSIONS {
            for qos in ["0", "1", "2"] {
                let text = payload(device, sent.len() + 1);
                publishes(&line, version, qos, &format!("devices/{device}/telemetry"), &text).await;
                sent.push((format!("dt/{device}/{device}"), text));
            }
        }
    }
    let ledger = cloud.ledger();
    ledger
        .wait_for(support::DEADLINE, |ledger| ledger.unique() >= sent.len() as u64)
        .await
        .unwrap();
    let arrived: Vec<_> = ledger
        .entries()
        .into_iter()
        .map(|entry| (entry.topic, String::from_utf8(entry.payload.unwrap().to_vec()).unwrap()))
        .collect();
    assert_eq!(
        arrived, sent,
        "each under the identity of its certificate or listener, once and in order"
    );
    assert_eq!(cloud.violations(), Vec::<String>::new());
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_clients_reach_each_other_over_tls_and_loopback() {
    let plant = Plant::new(&[BOARD, OTHER]);
    let mut gateway = scene(&plant).cloud_on(1).gateway();
    gateway.start().await;
    let (board, loopback) = (over_tls(&gateway, &plant, BOARD), on_loopback(&gateway));

    for version in VERSIONS {
        let mut observer = subscribes(&loopback, version, "devices/#").await;
        let mut commanded = subscribes(&board, version, &format!("devices/{BOARD}/commands/#")).await;
        for (number, publisher) in VERSIONS.into_iter().enumerate() {
            for qos in ["0", "1", "2"] {
                let telemetry = payload(BOARD, number);
                publishes(&board, publisher, qos, &format!("devices/{BOARD}/telemetry"), &telemetry).await;
                let line = format!("MESSAGE devices/{BOARD}/telemetry {telemetry}");
                observer.says(&line, |said| said.contains(&line)).await;
                observer.said.retain(|said| *said != line);

                let command = format!("-V {publisher} -q {qos}");
                publishes(&loopback, publisher, qos, &format!("devices/{BOARD}/commands/do"), &command).await;
                let line = format!("MESSAGE devices/{BOARD}/commands/do {command}");
                commanded.says(&line, |said| said.contains(&line)).await;
            }
        }
        // Rules hold for what others send, too: nobody hears another board's commands.
        let foreign = subscribes(&over_tls(&gateway, &plant, OTHER), version, &format!("devices/{BOARD}/commands/#")).await;
        let refused = if version == "5" { ": 135" } else { ": 128" };
        assert!(
            foreign
                .said
                .iter()
                .any(|line| line.contains("Subscribed") && line.ends_with(refused)),
            "{:?}",
            foreign.said
        );
    }
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_sub_gets_each_message_at_its_qos_and_acknowledges_it() {
    let plant = Plant::new(&[BOARD]);
    let mut gateway = scene(&plant).cloud_on(1).gateway();
    gateway.start().await;
    let loopback = on_loopback(&gateway);
    let topic = format!("devices/{BOARD}/commands/do");
    let mut acknowledged = 0;
    for version in VERSIONS {
        for asked in 0..=2 {
            let mut subscriber = subscribes_at(&loopback, version, &asked.to_string(), &topic, "MESSAGE %q %p").await;
            for published in 0..=2 {
                for number in 0..3 {
                    let payload = format!("{published}.{number}");
                    publishes(&loopback, version, &published.to_string(), &topic, &payload).await;
                    let line = format!("MESSAGE {} {payload}", published.min(asked));
                    subscriber.says(&line, |said| said.contains(&line)).await;
                    acknowledged += u64::from(published.min(asked) > 0);
                }
            }
            eventually("all are acknowledged", || async {
                (gateway.metric("forebay_owed_acked_total", &[]).await == acknowledged as f64).then_some(())
            })
            .await;
        }
    }
    assert_eq!(gateway.metric("forebay_owed_total", &[]).await, acknowledged as f64);
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_subs_of_both_versions_share_a_subscription() {
    let plant = Plant::new(&[BOARD]);
    let mut gateway = scene(&plant).cloud_on(1).gateway();
    gateway.start().await;
    let loopback = on_loopback(&gateway);
    let mut members = Vec::new();
    for version in VERSIONS {
        for qos in ["1", "2"] {
            members.push(subscribes_at(&loopback, version, qos, "$share/workers/work/#", "MESSAGE %p").await);
        }
    }
    for number in 1..=20 {
        publishes(&loopback, "5", "2", "work/x", &number.to_string()).await;
    }
    let mut all = Vec::new();
    for member in &mut members {
        member.says("five of twenty", |said| messages(said).len() >= 5).await;
        all.extend(messages(&member.said));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20, "{all:?}");
    eventually("all are acknowledged", || async {
        (gateway.metric("forebay_owed_acked_total", &[]).await == 20.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("forebay_owed_total", &[]).await, 20.0, "each has one member");
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_sub_gets_what_mosquitto_pub_retained_before_a_kill() {
    let plant = Plant::new(&[BOARD]);
    let mut gateway = scene(&plant).cloud_on(1).gateway();
    gateway.start().await;
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            for payload in ["old", "new"] {
                let mut line = on_loopback(&gateway);
                line.push("-r".to_owned());
                publishes(&line, version, qos, &format!("kept/{version}/{qos}"), payload).await;
            }
        }
        let mut line = on_loopback(&gateway);
        line.push("-r".to_owned());
        publishes(&line, version, "1", "removed", "old").await;
        line.extend(owned(&["-n", "-V", version, "-q", "1", "-t", "removed"]));
        let removed = run(&mosquitto_pub(), &line.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(removed.status.success(), "{removed:?}");
    }
    for _ in 0..2 {
        for version in VERSIONS {
            let mut subscriber = subscribes(&on_loopback(&gateway), version, "#").await;
            subscriber.says("six messages", |said| messages(said).len() >= 6).await;
            let mut expected = Vec::new();
            for version in VERSIONS {
                expected.extend(["0", "1", "2"].map(|qos| format!("MESSAGE kept/{version}/{qos} new")));
            }
            assert_eq!(messages(&subscriber.said), expected);
        }
        gateway.kill().await;
        gateway.start().await;
    }
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_mosquitto_with_mutual_tls_receives_everything_as_the_cloud() {
    const MESSAGES: usize = 500;
    for protocol in ["5", "3.1.1"] {
        let plant = Plant::new(&[BOARD]);
        let cloud = Cloud::new().await;
        let _broker = cloud.start().await;
        let mut observer = cloud.observer().await;
        let mut gateway = cloud.scene(&plant, protocol).gateway();
        gateway.start().await;

        // One process, one message a line.
        let mut arguments = over_tls(&gateway, &plant, BOARD);
        arguments.extend(owned(&["-V", "5", "-q", "1", "-t", &format!("devices/{BOARD}/telemetry"), "-l"]));
        let lines: String = (1..=MESSAGES).map(|seq| payload(BOARD, seq) + "\n").collect();
        let file = gateway.folder().join("lines");
        std::fs::write(&file, lines).unwrap();
        let input = std::fs::File::open(&file).unwrap();
        let status = tokio::process::Command::new(mosquitto_pub())
            .args(&arguments)
            .stdin(input)
            .kill_on_drop(true)
            .status()
            .await
            .unwrap();
        assert!(status.success());

        let expected: Vec<_> = (1..=MESSAGES)
            .map(|seq| format!("MESSAGE dt/{BOARD}/{BOARD} {}", payload(BOARD, seq)))
            .collect();
        observer.says("every message", |said| messages(said).len() >= MESSAGES).await;
        assert_eq!(messages(&observer.said), expected, "once and in order, over MQTT {protocol}");
        gateway.drained().await;
        assert_eq!(gateway.stop().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mosquitto_pub_saw_acked_is_in_the_cloud_although_the_gateway_was_killed_in_between() {
    let plant = Plant::new(&[BOARD]);
    let cloud = Cloud::new().await;
    let mut gateway = cloud.scene(&plant, "5").gateway();
    gateway.start().await;
    let mut sent = Vec::new();
    for (version, qos) in [("311", "1"), ("5", "1"), ("311", "2"), ("5", "2")] {
        let text = payload(BOARD, sent.len() + 1);
        publishes(
            &over_tls(&gateway, &plant, BOARD),
            version,
            qos,
            &format!("devices/{BOARD}/telemetry"),
            &text,
        )
        .await;
        sent.push(format!("MESSAGE dt/{BOARD}/{BOARD} {text}"));
        gateway.kill().await;
        gateway.start().await;
    }
    assert_eq!(gateway.waiting().await, sent.len() as u64);

    let _broker = cloud.start().await;
    let mut observer = cloud.observer().await;
    observer
        .says("every acked message", |said| sent.iter().all(|line| said.contains(line)))
        .await;
    assert_eq!(messages(&observer.said), sent);
    gateway.drained().await;
    assert_eq!(gateway.stop().await, 0);
}

fn messages(said: &[String]) -> Vec<String> {
    said.iter().filter(|line| line.starts_with("MESSAGE")).cloned().collect()
}

/// A plant's own Mosquitto that bridges to the gateway with nothing but what a bridge must have: it asks for the bridge protocol first,
/// and has a will on `$SYS/broker/connection/...`.
#[tokio::test(flavor = "multi_thread")]
async fn p2_a_mosquitto_bridge_with_its_defaults_falls_back_and_delivers() {
    let cloud = Standin::start(StandinConfig::default()).await.unwrap();
    let mut gateway = Scene::new("interop")
        .listener("identity: local")
        .cloud(cloud.address())
        .route("from: \"devices/+/telemetry\", to: \"dt/{1}\", stream: telemetry")
        .route("from: \"$SYS/broker/connection/#\", local: true")
        .more("access: [{who: local, publish: [\"#\", \"$SYS/broker/connection/#\"], subscribe: [\"#\"]}]\n")
        .gateway();
    gateway.start().await;
    let port = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mosquitto.conf");
    let text = format!(
        "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stdout\nconnection up\naddress 127.0.0.1:{}\ntopic devices/# out 1\n",
        gateway.listeners[0].port()
    );
    std::fs::write(&config, text).unwrap();
    let _broker = Running::start(&program("mosquitto", "mosquitto"), &["-c", &config.display().to_string()]);
    eventually("mosquitto listens", || async { TcpStream::connect(("127.0.0.1", port)).await.ok() }).await;
    let line = owned(&["-h", "127.0.0.1", "-p", &port.to_string()]);
    publishes(&line, "311", "1", "devices/b7/telemetry", "21.5").await;
    cloud
        .ledger()
        .wait_for(support::DEADLINE, |ledger| ledger.unique() >= 1)
        .await
        .unwrap();
    assert_eq!(cloud.ledger().entries()[0].topic, "dt/b7");
    assert_eq!(gateway.stop().await, 0);
}

/// The broker does not say that it was a takeover.
#[tokio::test(flavor = "multi_thread")]
async fn d_two_gateways_with_one_id_are_told_so_by_both() {
    let cloud = Cloud::new().await;
    let _broker = cloud.start().await;
    let plant = Plant::new(&[BOARD]);
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let mut gateway = cloud.scene(&plant, "5").gateway();
        gateway.start().await;
        gateways.push(gateway);
    }
    for gateway in &gateways {
        eventually("the takeover is named", || async {
            let problems = gateway.status().await["problems"].to_string();
            problems.contains("Give each gateway its own gateway.id").then_some(())
        })
        .await;
    }
}
