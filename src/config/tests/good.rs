//! What a configuration means when nothing is wrong with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::gateway::Survive;
use super::super::route::Destination;
use super::super::*;
use super::{good, minimal_and};

/// A configuration with every key of this version.
const WHOLE: &str = r##"
gateway:
  id: plant-7
  data_dir: /var/lib/forebay
  max_disk: 4GiB
  keep_free: 512MiB
  commit_wait: 500ms
  survive: {outage: 12h, rate: 40/s, size: 256B}
listeners:
  - bind: 0.0.0.0:8883
    names: [plant-7.local, 192.168.10.2]
    tls: {certificate: certs/server.pem, key: certs/server.key, client_ca: certs/devices-ca.pem, crl: certs/devices.crl}
    identity: "{cn}"
  - bind: 127.0.0.1:1883
    identity: local
access:
  - {who: local, publish: ["#"], subscribe: ["#", "$SYS/#"]}
  - who: "*"
    publish: ["devices/{device}/#"]
    subscribe: ["devices/{device}/commands/#"]
    deny: ["devices/{device}/factory/#"]
limits: {max_connections: 2000, max_packet: 128KiB, max_in_flight: 100, max_keep_alive: 20m, max_topics: 100000}
sessions: {max_bytes: 256MiB, per_session: 8MiB, max_expiry: 7d, ack_timeout: 60s}
streams:
  - {name: alarms, max_bytes: 64MiB, when_full: refuse}
  - {name: telemetry, max_bytes: 1GiB, max_age: 7d, when_full: drop_oldest, order: strict}
routes:
  - from: devices/+/alarm
    to: "{gateway}/{topic}"
    stream: alarms
    ack: disk
  - from: devices/+/telemetry/#
    to: "dt/{gateway}/{device}/{#}"
    stream: telemetry
    retain: strip
    qos: 0
  - {from: "debug/#", local: true}
watch:
  - topic: devices/+/telemetry/#
    every: 60s
    sequence: {counter: /seq, boot: /boot}
    fields:
      - {at: /temp, range: [-40, 85], drift: {topic: devices/ref-1/telemetry/env, at: /temp, more_than: 1.0}}
cloud:
  profile: aws-iot
  endpoint: example-ats.iot.eu-west-1.amazonaws.com
  port: 8883
  client_id: "{gateway}"
  tls: {certificate: certs/cloud.pem, key: certs/cloud.key}
  lanes: 1
  in_flight: 32
  max_bandwidth: 64KiB/s
  canary: off
admin:
  bind: 127.0.0.1:9464
"##;

#[test]
fn every_key_of_this_version_is_read() {
    let config = good(WHOLE);
    assert_eq!(config.gateway.id.as_str(), "plant-7");
    assert_eq!(config.gateway.data_dir, Path::new("/var/lib/forebay"));
    assert_eq!((config.gateway.max_disk, config.gateway.keep_free), (4 << 30, 512 << 20));
    assert_eq!(config.gateway.commit_wait, Duration::from_millis(500));
    assert_eq!(
        config.gateway.survive,
        Survive {
            outage: Duration::from_secs(43_200),
            rate: 40.0,
            size: 256
        }
    );
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/forebay/certs/server.pem"));
    assert_eq!(tls.crl, Some(PathBuf::from("/etc/forebay/certs/devices.crl")));
    assert_eq!(config.listeners[0].names, ["plant-7.local", "192.168.10.2"]);
    assert_eq!(config.listeners[0].identity, Identity::CommonName);
    assert_eq!(config.listeners[1].identity, Identity::Fixed("local".to_owned()));
    assert_eq!(config.listeners[1].tls, None);
    assert_eq!(
        config.access[1].deny,
        [forebay_topic::Template::parse("devices/{device}/factory/#").unwrap()]
    );
    assert_eq!(config.streams[0].when_full, WhenFull::Refuse);
    assert_eq!(config.streams[1].max_age, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(config.routes[1].name(), "devices/+/telemetry/#");
    let telemetry = config.routes[1].cloud().unwrap();
    assert_eq!((telemetry.stream, telemetry.qos, telemetry.retain), (1, 0, false));
    assert_eq!(config.routes[2].to, Destination::Local);
    let watch = &config.watch[0];
    assert_eq!(
        (watch.topic.as_str(), watch.every),
        ("devices/+/telemetry/#", Some(Duration::from_secs(60)))
    );
    assert_eq!(watch.sequence.as_ref().unwrap().boot.as_deref(), Some("/boot"));
    let field = &watch.fields[0];
    assert_eq!((field.at.as_str(), field.range), ("/temp", Some((-40.0, 85.0))));
    let drift = field.drift.as_ref().unwrap();
    assert_eq!(
        (drift.topic.as_str(), drift.at.as_str(), drift.more_than),
        ("devices/ref-1/telemetry/env", "/temp", 1.0)
    );
    let cloud = config.cloud.unwrap();
    assert_eq!((cloud.client_id.as_str(), cloud.port, cloud.in_flight), ("plant-7", 8883, 32));
    assert_eq!((cloud.max_bandwidth, cloud.canary), (Some(65_536), None));
    assert_eq!(config.admin.token, None);
}

#[test]
fn a_minimal_file_has_the_defaults_of_the_whole_one() {
    let config = good("gateway: {id: plant-7}\nlisteners: [{bind: 0.0.0.0:8883}]\ncloud: {endpoint: a.example}");
    let whole = good(WHOLE);
    assert_eq!(config.gateway.survive, whole.gateway.survive);
    assert_eq!(config.gateway.max_disk, whole.gateway.max_disk);
    assert_eq!(config.gateway.commit_wait, Duration::ZERO);
    assert_eq!(config.gateway.data_dir, Path::new("/etc/forebay/data"));
    assert_eq!(
        config.listeners[0].tls.as_ref().unwrap().client_ca,
        Path::new("/etc/forebay/certs/devices-ca.pem")
    );
    assert_eq!(config.listeners[0].identity, Identity::CommonName);
    assert_eq!(config.access, whole.access);
    assert_eq!(
        (config.limits, config.sessions, config.admin.bind),
        (whole.limits, whole.sessions, whole.admin.bind)
    );
    assert_eq!(config.streams.len(), 1);
    assert_eq!((config.streams[0].name.as_str(), config.streams[0].max_bytes), ("default", 1 << 30));
    assert_eq!(config.routes[0].name(), "devices/#");
    let cloud = config.cloud.unwrap();
    assert_eq!((cloud.profile, cloud.protocol, cloud.port), (Profile::AwsIot, Protocol::V5, 8883));
    assert_eq!(cloud.tls.unwrap().identity.unwrap().key, Path::new("/etc/forebay/certs/cloud.key"));
    assert_eq!((cloud.max_bandwidth, cloud.canary), (None, Some(Duration::from_secs(300))));
}

#[test]
fn without_a_cloud_it_is_a_local_broker() {
    let config = good("gateway: {id: g}\nlisteners: [{bind: 127.0.0.1:0}]");
    assert_eq!(config.cloud, None);
    assert!(config.routes.is_empty());
    assert_eq!(config.listeners[0].identity, Identity::Fixed("local".to_owned()));
}

#[test]
fn json_is_valid_too() {
    let config = good(r#"{"gateway": {"id": "g"}, "listeners": [{"bind": "127.0.0.1:0"}], "cloud": {"endpoint": "127.0.0.1", "port": 1}}"#);
    let cloud = config.cloud.unwrap();
    assert_eq!((cloud.port, cloud.tls), (1, None));
}

#[test]
fn a_cloud_on_loopback_or_insecure_may_be_plain() {
    for cloud in [
        "endpoint: localhost",
        "endpoint: 127.0.0.1",
        "{endpoint: b.example, insecure: true}",
        "{endpoint: b.example, profile: mqtt, insecure: true}",
    ] {
        let cloud = if cloud.starts_with('{') {
            cloud.to_owned()
        } else {
            format!("{{{cloud}}}")
        };
        let config = good(&format!("gateway: {{id: g}}\nlisteners: [{{bind: 127.0.0.1:0}}]\ncloud: {cloud}"));
        assert_eq!(config.cloud.map(|cloud| (cloud.tls, cloud.port)), Some((None, 1883)));
    }
}

#[test]
fn an_mqtt_cloud_needs_no_client_certificate_and_has_no_bandwidth_of_its_own() {
    let config =
        good("gateway: {id: g}\nlisteners: [{bind: 127.0.0.1:0}]\ncloud: {profile: mqtt, endpoint: b.example, protocol: 3.1.1, tls: {}}");
    let cloud = config.cloud.unwrap();
    assert_eq!(cloud.tls, Some(CloudTls { identity: None, ca: None }));
    assert_eq!((cloud.max_bandwidth, cloud.protocol), (None, Protocol::V311));
}

#[test]
fn systemd_names_the_data_directory() {
    let env = [("STATE_DIRECTORY".to_owned(), "/var/lib/forebay:/var/lib/other".to_owned())].into();
    let overrides = Overrides {
        env,
        skip_files: true,
        ..Overrides::default()
    };
    let config = parse(super::MINIMAL, Path::new("x"), &overrides).unwrap();
    assert_eq!(config.gateway.data_dir, Path::new("/var/lib/forebay"));
}

#[test]
fn the_fingerprint_changes_with_every_setting_and_with_nothing_else() {
    let one = good(super::MINIMAL).fingerprint;
    assert_eq!(one, good(&minimal_and("# a comment\n")).fingerprint);
    assert_ne!(
        one,
        good(&minimal_and("gateway_: {}\n").replace("gateway_: {}", "limits: {max_topics: 200}")).fingerprint
    );
}
