//! What comes later than the gateway, or changes under it: addresses, ports, certificates. It waits, says so, and serves what it can.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use forebay_aws_standin::{Standin, StandinConfig, TlsConfig};
use forebay_broker::codec::{QoS, ReasonCode, Version};
use support::device::Device;
use support::eventually;
use support::gateway::Gateway;
use support::plant::Plant;
use support::scene::Scene;

const ANY_CLIENT: &str = "identity: \"{client_id}\"";

/// Waits until a problem says all of these words.
async fn problem(gateway: &Gateway, words: &[&str]) {
    eventually(&format!("a problem that says all of {words:?}"), || async {
        let status = gateway.status().await;
        let problems = status["problems"].as_array().unwrap();
        let says = |line: &str| words.iter().all(|word| line.contains(word));
        problems.iter().any(|line| says(line.as_str().unwrap())).then_some(())
    })
    .await;
}

fn copy(from: &Path, to: &Path, names: &[(&str, &str)]) {
    for (source, name) in names {
        std::fs::copy(from.join(source), to.join(name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_listener_whose_port_or_address_is_not_there_yet_is_waited_for_while_the_others_serve() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (busy, missing) = (held.local_addr().unwrap(), "192.0.2.7:18830");
    let config = Scene::new("late").listener(ANY_CLIENT).config();
    let line = format!("  - {{bind: \"127.0.0.1:0\", {ANY_CLIENT}}}");
    assert!(config.contains(&line), "{config}");
    let more = format!("{line}\n  - {{bind: \"{busy}\", {ANY_CLIENT}}}\n  - {{bind: \"{missing}\", insecure: true, {ANY_CLIENT}}}");
    let mut gateway = Gateway::new(&config.replace(&line, &more));
    gateway.start().await;
    assert_eq!(gateway.listeners.len(), 1, "the ready line names what serves");
    Device::connect(gateway.listeners[0], "d1", Version::V5, true)
        .await
        .expect("the first one serves");
    problem(&gateway, &[&busy.to_string(), "another program has the port", "ss -ltnp"]).await;
    problem(&gateway, &[missing, "does not have the address, or not yet"]).await;
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 503);
    assert!(gateway.metric("forebay_closed_listeners", &[]).await > 1.5);
    drop(held);
    eventually("the port is taken when it is free", || {
        Device::connect(busy, "d2", Version::V5, true)
    })
    .await;
    gateway.logs(&[&busy.to_string(), "the listener serves now"]).await;
    let told = gateway
        .log()
        .lines()
        .filter(|line| line.contains("a listener cannot serve"))
        .count();
    assert_eq!(told, 2, "once for each, then a count each minute:\n{}", gateway.log());
    assert_eq!(gateway.stop().await, 0, "although one is still waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_an_admin_port_that_is_held_stops_no_device() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = held.local_addr().unwrap();
    let mut gateway = Scene::new("late").set("admin", "bind", format!("\"{admin}\"")).gateway();
    gateway.start().await;
    Device::connect(gateway.listeners[0], "d1", Version::V5, true)
        .await
        .expect("devices are served");
    gateway
        .logs(&["the admin server cannot serve", "another program has the port"])
        .await;
    drop(held);
    eventually("the port is taken when it is free", || gateway.get("/healthz")).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_a_listeners_certificates_may_come_later_and_half_renewed_ones_are_waited_for() {
    let (plant, other) = (Plant::new(&["d1"]), Plant::new(&[]));
    let certs = tempfile::tempdir().unwrap();
    let at = |name: &str| certs.path().join(name).display().to_string();
    let tls = format!(
        "{{certificate: {}, key: {}, client_ca: {}}}",
        at("server.pem"),
        at("server.key"),
        at("devices-ca.pem")
    );
    let mut gateway = Scene::new("late")
        .listener(ANY_CLIENT)
        .listener(&format!("names: [localhost], tls: {tls}, identity: \"{{cn}}\""))
        .gateway();
    // Its port must be known before it is open.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = gateway.folder().join("forebay.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    let (before, after) = config.rsplit_once("127.0.0.1:0\", names").unwrap();
    std::fs::write(&path, format!("{before}{free}\", names{after}")).unwrap();
    gateway.start().await;
    Device::connect(gateway.listeners[0], "d1", Version::V5, true)
        .await
        .expect("the plain one serves");
    problem(&gateway, &[&free.to_string(), "does not exist"]).await;
    // The mount comes, in the middle of a renewal.
    copy(
        plant.folder(),
        certs.path(),
        &[("devices-ca.pem", "devices-ca.pem"), ("server.pem", "server.pem")],
    );
    copy(other.folder(), certs.path(), &[("server.key", "server.key")]);
    problem(&gateway, &[&free.to_string(), "does not belong to the first certificate"]).await;
    copy(plant.folder(), certs.path(), &[("server.key", "server.key")]);
    let device = plant.device("d1");
    eventually("the listener opens when its files are whole", || async {
        Device::connect_tls(free, "localhost", &device, "d1", Version::V5).await.ok()
    })
    .await;
    assert_eq!(gateway.get("/readyz").await.unwrap().0, 200);
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_a_file_of_a_listener_that_is_replaced_is_a_problem_that_says_restart() {
    let (plant, other) = (Plant::new(&[]), Plant::new(&[]));
    let mut gateway = Scene::new("late").tls_listener(&plant).gateway();
    gateway.start().await;
    assert_eq!(gateway.metric("forebay_stale_files", &[]).await, 0.0);
    for name in ["devices-ca.pem", "server.pem", "server.key"] {
        copy(other.folder(), plant.folder(), &[(name, name)]);
    }
    for name in ["devices-ca.pem", "server.pem", "server.key"] {
        problem(&gateway, &[name, "has changed on disk", "still uses the old one", "restart"]).await;
        gateway.logs(&[name, "restart the gateway"]).await;
    }
    assert_eq!(gateway.metric("forebay_stale_files", &[]).await, 3.0);
    assert_eq!(gateway.stop().await, 0);
}

/// A cloud with TLS whose certificates are a plant's.
async fn cloud_of(plant: &Plant) -> Standin {
    let read = |name: &str| std::fs::read(plant.folder().join(name)).unwrap();
    let tls = TlsConfig::from_pem(&read("server.pem"), &read("server.key"), &read("devices-ca.pem"), Some("localhost")).unwrap();
    Standin::start(StandinConfig {
        tls: Some(tls),
        ..StandinConfig::default()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_e13_the_clouds_files_may_come_later_and_are_read_at_each_connect() {
    let (plant, other) = (Plant::new(&["plant-7"]), Plant::new(&["plant-7"]));
    let cloud = cloud_of(&plant).await;
    let certs = tempfile::tempdir().unwrap();
    let at = |name: &str| certs.path().join(name).display().to_string();
    let tls = format!(
        "{{ca: {}, certificate: {}, key: {}}}",
        at("ca.pem"),
        at("cloud.pem"),
        at("cloud.key")
    );
    let mut gateway = Scene::new("late")
        .cloud(cloud.address())
        .set("cloud", "endpoint", "localhost")
        .set("cloud", "tls", tls)
        .gateway();
    gateway.start().await;
    let mut device = Device::connect(gateway.listeners[0], "d1", Version::V5, true).await.unwrap();
    device
        .publish("devices/d1/telemetry", b"1", QoS::AtLeastOnce, 1, false)
        .await
        .unwrap();
    assert_eq!(
        device.puback().await,
        Some(ReasonCode::SUCCESS),
        "the device side runs without the cloud's files"
    );
    problem(&gateway, &["the files of cloud.tls cannot be used", "ca.pem cannot be read"]).await;
    // Half of a renewal.
    copy(
        plant.folder(),
        certs.path(),
        &[("devices-ca.pem", "ca.pem"), ("plant-7.pem", "cloud.pem")],
    );
    copy(other.folder(), certs.path(), &[("plant-7.key", "cloud.key")]);
    problem(&gateway, &["cloud.pem and", "do not belong together"]).await;
    // Whole, but another authority's: the cloud says no, and the status says that.
    copy(other.folder(), certs.path(), &[("plant-7.pem", "cloud.pem")]);
    problem(&gateway, &["does not accept our certificate"]).await;
    assert_eq!(gateway.waiting().await, 1);
    copy(
        plant.folder(),
        certs.path(),
        &[("plant-7.pem", "cloud.pem"), ("plant-7.key", "cloud.key")],
    );
    support::within(support::DEADLINE * 2, "the renewed files are used", || async {
        (gateway.waiting().await == 0).then_some(())
    })
    .await;
    assert_eq!(gateway.stop().await, 0);
}
