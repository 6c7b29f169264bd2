//! The commands about the log, against a running gateway and against its stopped directory: what they show, what they
//! change, what they refuse.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use forebay_aws_standin::{Standin, StandinConfig};
use forebay_broker::codec::{QoS, ReasonCode, Version};
use serde_json::Value;
use support::device::Device;
use support::eventually;
use support::gateway::{Gateway, forebay};
use support::scene::Scene;

const FAILED: i32 = 1;
const DISK: i32 = 74;
const CONFIG: i32 = 78;

async fn cloud() -> Standin {
    Standin::start(StandinConfig::default()).await.unwrap()
}

fn gateway(cloud: &Standin) -> Gateway {
    Scene::new("plant-7")
        .stream("name: alarms, max_bytes: 8MiB, when_full: refuse")
        .stream("name: telemetry, max_bytes: 64MiB, when_full: drop_oldest")
        .route("from: \"devices/+/alarm\", to: \"alarms/{device}\", stream: alarms")
        .route("from: \"devices/#\", to: \"dt/{topic}\", stream: telemetry")
        .cloud(cloud.address())
        .gateway()
}

/// A command about this gateway's log: exit code, stdout, stderr.
async fn command(gateway: &Gateway, words: &[&str]) -> (i32, String, String) {
    let bind = format!("admin.bind={}", gateway.admin);
    let mut words = words.to_vec();
    if gateway.admin.port() != 0 {
        words.extend(["--set", &bind]);
    }
    forebay(&words, gateway.folder()).await
}

/// As [`command`], which must end well; its lines of JSON.
async fn lines(gateway: &Gateway, words: &[&str]) -> Vec<Value> {
    let (code, stdout, stderr) = command(gateway, words).await;
    assert_eq!(code, 0, "{words:?}: {stdout}{stderr}");
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

async fn object(gateway: &Gateway, words: &[&str]) -> Value {
    let mut lines = lines(gateway, words).await;
    assert_eq!(lines.len(), 1, "{words:?}");
    lines.remove(0)
}

async fn publish(gateway: &Gateway, device: &str, topic: &str, payloads: &[&[u8]]) {
    let mut line = Device::connect(gateway.listeners[0], device, Version::V5, true).await.unwrap();
    for (nth, payload) in payloads.iter().enumerate() {
        line.publish(topic, payload, QoS::AtLeastOnce, nth as u16 + 1, false).await.unwrap();
        assert_eq!(line.puback().await, Some(ReasonCode::SUCCESS));
    }
}

fn texts<'v>(lines: &'v [Value], field: &str) -> Vec<&'v str> {
    lines.iter().map(|line| line[field].as_str().unwrap()).collect()
}

fn bytes(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// The first fields of docs/log.md's table under a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/log.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("docs/log.md has no section {heading}"));
    let fields = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    fields.map(|(field, _)| field.to_owned()).collect()
}

fn has_only_documented(line: &Value, heading: &str) {
    let documented = documented(heading);
    for field in line.as_object().unwrap().keys() {
        assert!(documented.contains(field), "docs/log.md, {heading}: {field} is not described");
    }
}

#[tokio::test]
async fn every_command_about_the_log_is_documented_once() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/log.md")).unwrap();
    let mut commands = vec!["audit".to_owned()];
    for group in ["log", "dead"] {
        let (_, help, _) = forebay(&[group, "--help"], Path::new(".")).await;
        let listed = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty());
        let names = listed
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next());
        commands.extend(names.filter(|name| *name != "help").map(|name| format!("{group} {name}")));
    }
    assert_eq!(commands.len(), 13, "{commands:?}");
    for command in &commands {
        let row = format!("| `forebay {command}` |");
        assert_eq!(page.matches(&row).count(), 1, "docs/log.md: {row}");
    }
    let rows = page.matches("| `forebay ").count();
    assert_eq!(rows, commands.len(), "docs/log.md describes commands that are not there");
}

/// What every reading command shows, in whichever mode.
async fn shows(gateway: &Gateway, is_running: bool) {
    stat(gateway, is_running).await;
    segments(gateway, is_running).await;
    records(gateway).await;
    selections(gateway).await;
    counts(gateway).await;
    changes_nothing(gateway).await;
}

async fn stat(gateway: &Gateway, is_running: bool) {
    let stat = object(gateway, &["log", "stat", "--json"]).await;
    has_only_documented(&stat, "forebay log stat");
    assert_eq!((&stat["running"], &stat["gateway"]), (&is_running.into(), &"plant-7".into()));
    assert_eq!(stat["since_start"].is_object(), is_running);
    let streams: BTreeMap<&str, &Value> = stat["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| (stream["name"].as_str().unwrap(), stream))
        .collect();
    assert_eq!(
        (&streams["telemetry"]["waiting"], &streams["alarms"]["waiting"]),
        (&5.into(), &1.into())
    );
    assert!(streams["telemetry"]["oldest_seconds"].is_u64(), "{stat}");
    if is_running {
        let since = &stat["since_start"];
        assert!(
            since["written_bytes"].as_u64().unwrap() > since["payload_bytes"].as_u64().unwrap(),
            "{since}"
        );
        assert!(since["written_per_payload_byte"].as_f64().unwrap() > 1.0 && since["projected_gb_per_day"].is_f64());
    }
    let (code, text, _) = command(gateway, &["log", "stat"]).await;
    assert!(
        code == 0 && text.contains("telemetry") && text.contains(if is_running { "per day" } else { "closed properly" }),
        "{text}"
    );
}

async fn segments(gateway: &Gateway, is_running: bool) {
    let segments = lines(gateway, &["log", "ls", "--json"]).await;
    segments.iter().for_each(|segment| has_only_documented(segment, "forebay log ls"));
    assert_eq!(segments.last().unwrap()["condition"], if is_running { "active" } else { "clean" });
    let (code, text, _) = command(gateway, &["log", "ls"]).await;
    assert!(code == 0 && text.contains("0000000001.redb"), "{text}");
}

async fn records(gateway: &Gateway) {
    let all = lines(gateway, &["log", "export"]).await;
    all.iter().for_each(|line| has_only_documented(line, "Records"));
    assert_eq!(
        texts(&all, "payload"),
        ["fire", "1", "2", "3", "/wA=", "other"],
        "by stream, in order"
    );
    assert_eq!(texts(&all, "payload_encoding")[4], "base64");
    let first = &all[1];
    assert!(first["id"].as_str().unwrap().starts_with("plant-7/") && first["id"].as_str().unwrap().ends_with("/telemetry/0"));
    assert_eq!(
        (
            &first["stream"],
            &first["offset"],
            &first["state"],
            &first["identity"],
            &first["topic"]
        ),
        (
            &"telemetry".into(),
            &0.into(),
            &"waiting".into(),
            &"board-1".into(),
            &"devices/board-1/env".into()
        )
    );
}

async fn selections(gateway: &Gateway) {
    for (filter, expected) in [
        (&["--stream", "alarms"][..], &["fire"][..]),
        (&["--topic", "devices/+/alarm"], &["fire"]),
        (&["--identity", "board-2"], &["other"]),
        (
            &["--since", "1h", "--until", "2100-01-01", "--identity", "board-1", "--limit", "2"],
            &["fire", "1"],
        ),
        (&["--until", "1h"], &[]),
        (&["--state", "settled"], &[]),
        (&["--stream", "telemetry", "--from", "3"], &["/wA=", "other"]),
    ] {
        let found = lines(gateway, &[&["log", "export"], filter].concat()).await;
        assert_eq!(texts(&found, "payload"), expected, "{filter:?}");
    }
    let newest = lines(gateway, &["log", "tail", "-n", "2", "--stream", "telemetry", "--json"]).await;
    assert_eq!(texts(&newest, "payload"), ["/wA=", "other"]);
    let (code, text, _) = command(gateway, &["log", "tail"]).await;
    assert!(
        code == 0 && text.lines().count() == 6 && text.contains("board-2 devices/board-2/env other"),
        "{text}"
    );
}

async fn counts(gateway: &Gateway) {
    let (code, text, _) = command(gateway, &["log", "verify"]).await;
    assert!(
        code == 0 && text.starts_with("0 findings") && text.contains("the ledger balances"),
        "{text}"
    );
    let verified = object(gateway, &["log", "verify", "--json"]).await;
    has_only_documented(&verified, "forebay log verify");
    assert_eq!((&verified["verified"], &verified["records"]), (&true.into(), &6.into()));

    let audit = object(gateway, &["audit", "--devices", "--json"]).await;
    has_only_documented(&audit, "forebay audit");
    assert_eq!(
        (&audit["balances"], &audit["accepted"], &audit["waiting"]),
        (&true.into(), &6.into(), &6.into())
    );
    assert!(
        audit["devices"]
            .as_array()
            .unwrap()
            .iter()
            .any(|line| line["identity"] == "board-2" && line["accepted"] == 1)
    );
    let (code, text, _) = command(gateway, &["audit"]).await;
    assert!(code == 0 && text.contains("balances: accepted"), "{text}");
}

/// What would be changed is said, and nothing is.
async fn changes_nothing(gateway: &Gateway) {
    let (code, text, _) = command(gateway, &["dead", "ls"]).await;
    assert_eq!((code, text.as_str()), (0, "no dead letters\n"));
    let (code, text, _) = command(gateway, &["log", "replay", "--all"]).await;
    assert_eq!((code, text.as_str()), (0, "No settled records match\n"));
    let (code, _, told) = command(gateway, &["log", "export", "--stream", "telemetri"]).await;
    assert!(
        code == FAILED && told.contains("no stream `telemetri`; it has alarms, telemetry"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_log_and_a_stopped_one_show_the_same_and_a_stopped_one_is_not_touched() {
    let cloud = cloud().await;
    cloud.faults().stop_listening().await.unwrap();
    let mut gateway = gateway(&cloud);
    let (code, _, told) = command(&gateway, &["log", "stat"]).await;
    assert!(
        code == FAILED && told.contains("there is no log in") && told.contains("has the gateway run yet?"),
        "{told}"
    );

    gateway.start().await;
    publish(&gateway, "board-1", "devices/board-1/env", &[b"1", b"2", b"3", b"\xff\x00"]).await;
    publish(&gateway, "board-1", "devices/board-1/alarm", &[b"fire"]).await;
    publish(&gateway, "board-2", "devices/board-2/env", &[b"other"]).await;
    shows(&gateway, true).await;
    // Without a configuration, by its address.
    let url = format!("http://{}", gateway.admin);
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, text, told) = forebay(&["log", "export", "--url", &url, "--limit", "1"], elsewhere.path()).await;
    assert!(code == 0 && text.contains("fire"), "{text}{told}");
    // Running, but not reachable where the configuration says.
    let (code, _, told) = forebay(&["log", "stat", "--set", "admin.bind=127.0.0.1:1"], gateway.folder()).await;
    assert!(
        code == FAILED && told.contains("holds") && told.contains("does not answer at http://127.0.0.1:1") && told.contains("--url"),
        "{told}"
    );

    assert_eq!(gateway.stop().await, 0);
    let directory = gateway.folder().join("data/log");
    let before = bytes(&directory);
    shows(&gateway, false).await;
    let (code, text, told) = command(&gateway, &["log", "salvage", directory.to_str().unwrap(), "--all"]).await;
    assert!(
        code == 0 && text.lines().count() == 6 && told.contains("it is whole"),
        "{text}{told}"
    );
    text.lines()
        .for_each(|line| has_only_documented(&serde_json::from_str(line).unwrap(), "Records"));
    let (code, _, told) = command(&gateway, &["log", "tail", "--follow"]).await;
    assert!(code == FAILED && told.contains("not running"), "{told}");
    assert!(bytes(&directory) == before, "a command that reads changed the directory");

    // Damage is named, with exit code 1, and salvage gives the others back.
    let newest = directory.join("0000000001.redb");
    let mut damaged = before["0000000001.redb"].clone();
    // Pages that were copied on write still hold it too.
    let places: Vec<usize> = (0..damaged.len() - 5).filter(|at| damaged[*at..].starts_with(b"other")).collect();
    places.iter().for_each(|at| damaged[*at] ^= 1);
    std::fs::write(&newest, damaged).unwrap();
    let (code, text, _) = command(&gateway, &["log", "verify"]).await;
    assert!(
        code == FAILED && text.contains("wrong: 0000000001.redb: telemetry/4: the record's checksum is wrong"),
        "{text}"
    );
    let (code, text, told) = command(&gateway, &["log", "salvage", newest.to_str().unwrap()]).await;
    assert!(
        code == 0 && text.lines().count() == 5 && told.contains("it is damaged"),
        "{text}{told}"
    );
    let (code, _, told) = command(&gateway, &["log", "salvage", "nowhere"]).await;
    assert!(code == DISK && told.contains("nowhere cannot be read"), "{told}");
    let (code, _, _) = command(&gateway, &["log", "stat", "-c", "nowhere.yaml"]).await;
    assert_eq!(code, CONFIG);
}

/// A gateway with two dead letters, `bad-0` and `bad-1`, that the cloud takes from now on, and one delivered record.
async fn with_letters(cloud: &Standin) -> Gateway {
    let mut gateway = gateway(cloud);
    gateway.start().await;
    cloud.faults().answer("dt/devices/board-1/bad", 0x99, None);
    publish(&gateway, "board-1", "devices/board-1/bad", &[b"bad-0", b"bad-1"]).await;
    publish(&gateway, "board-1", "devices/board-1/env", &[b"good"]).await;
    gateway.drained().await;
    // The ledger counts a letter once it is settled; it can be read after the next commit.
    eventually("both are dead letters", || async {
        (lines(&gateway, &["dead", "export"]).await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(gateway.status().await["ledger"]["dead"], 2);
    cloud.faults().clear_answers();
    gateway
}

fn arrivals(cloud: &Standin, payload: &str) -> Vec<String> {
    let entries = cloud.ledger().entries();
    let of_payload = entries
        .into_iter()
        .filter(|entry| entry.payload.as_deref() == Some(payload.as_bytes()));
    of_payload.filter_map(|entry| entry.forebay_id).collect()
}

async fn balances(gateway: &Gateway) -> Value {
    let audit = object(gateway, &["audit", "--json"]).await;
    assert_eq!(audit["balances"], true, "{audit}");
    audit
}

/// Sends the delivered record again, puts one letter back, drops the other.
async fn changes(cloud: &Standin, gateway: &mut Gateway, is_running: bool) {
    let letters = lines(gateway, &["dead", "export"]).await;
    letters.iter().for_each(|line| has_only_documented(line, "Records"));
    assert_eq!(texts(&letters, "payload"), ["bad-0", "bad-1"]);
    let (first, id) = (letters[0]["letter"].to_string(), letters[0]["id"].as_str().unwrap().to_owned());
    let (code, text, _) = command(gateway, &["dead", "show", &id]).await;
    assert!(
        code == 0 && text.contains("bad-0") && text.contains(letters[0]["reason"].as_str().unwrap()),
        "{text}"
    );
    let (code, text, _) = command(gateway, &["dead", "ls"]).await;
    assert!(code == 0 && text.contains(&id), "{text}");
    let (code, _, told) = command(gateway, &["dead", "show", "4711"]).await;
    assert!(code == FAILED && told.contains("no dead letter 4711"), "{told}");

    // First: a command that changes a stopped log begins a segment, and one in which nothing waits any more goes.
    let good = lines(gateway, &["log", "export", "--topic", "devices/+/env"]).await;
    let good_id = good[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(good[0]["state"], "settled");
    let (code, text, told) = command(gateway, &["log", "replay", &good_id, "--yes"]).await;
    assert!(code == 0 && text.contains("1 of 1 settled records were sent again"), "{text}{told}");
    let (code, _, told) = command(gateway, &["dead", "requeue", "--yes"]).await;
    assert!(code == FAILED && told.contains("name dead letters"), "{told}");
    let (code, text, _) = command(gateway, &["dead", "requeue", &first]).await;
    assert!(
        code == 0 && text.contains(&id) && text.contains("1 dead letters would be put back; --yes does it"),
        "{text}"
    );
    assert_eq!(lines(gateway, &["dead", "export"]).await.len(), 2, "nothing was done");

    let (code, text, told) = command(gateway, &["dead", "requeue", &first, "--yes"]).await;
    assert!(code == 0 && text.contains("1 of 1 dead letters were put back"), "{text}{told}");
    let (code, text, told) = command(
        gateway,
        &["dead", "drop", "--identity", "board-1", "--topic", "devices/+/bad", "--yes"],
    )
    .await;
    assert!(code == 0 && text.contains("1 of 1 dead letters were dropped"), "{text}{told}");
    assert_eq!(lines(gateway, &["dead", "export"]).await.len(), 0);
    if !is_running {
        gateway.start().await;
    }
    gateway.drained().await;
    let ledger = cloud.ledger();
    eventually("all arrive", || async {
        (ledger.times(b"bad-0") == 1 && ledger.times(b"good") == 2).then_some(())
    })
    .await;
    assert_eq!(arrivals(cloud, "bad-0"), [id], "under its first id");
    assert_eq!(arrivals(cloud, "good"), [good_id.clone(), good_id], "under its first id");
    assert_eq!(ledger.times(b"bad-1"), 0);
    let audit = balances(gateway).await;
    assert_eq!(
        (&audit["accepted"], &audit["requeued"], &audit["delivered"], &audit["dead"]),
        (&3.into(), &2.into(), &3.into(), &2.into())
    );
    let (code, text, _) = command(gateway, &["log", "replay", &audit["accepted"].to_string(), "--yes"]).await;
    assert!(code == FAILED && text.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_in_a_running_log_reaches_the_cloud_under_its_first_id() {
    let cloud = cloud().await;
    let mut gateway = with_letters(&cloud).await;
    changes(&cloud, &mut gateway, true).await;
    gateway.logs(&["the log was changed", "/dead/requeue"]).await;
    gateway.logs(&["the log was changed", "/dead/drop"]).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_in_a_stopped_log_reaches_the_cloud_when_it_runs_again() {
    let cloud = cloud().await;
    let mut gateway = with_letters(&cloud).await;
    assert_eq!(gateway.stop().await, 0);
    changes(&cloud, &mut gateway, false).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_sees_what_comes_and_readers_are_bounded() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let cloud = cloud().await;
    let mut gateway = gateway(&cloud);
    gateway.start().await;
    publish(&gateway, "board-1", "devices/board-1/env", &[b"before"]).await;
    let bind = format!("admin.bind={}", gateway.admin);
    let follow = || {
        tokio::process::Command::new(support::gateway::FOREBAY)
            .args(["log", "tail", "-f", "-n", "1", "--identity", "board-1", "--json", "--set", &bind])
            .current_dir(gateway.folder())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    };
    let mut followers = Vec::new();
    for _ in 0..4 {
        let mut child = follow();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains("before"), "{line}");
        followers.push((child, lines));
    }
    let (code, _, told) = command(&gateway, &["log", "stat"]).await;
    assert!(code == FAILED && told.contains("4 readers"), "{told}");
    publish(&gateway, "board-2", "devices/board-2/env", &[b"not meant"]).await;
    publish(&gateway, "board-1", "devices/board-1/env", &[b"after"]).await;
    for (_, lines) in &mut followers {
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains("after"), "{line}");
    }
    drop(followers);
    eventually("the places are free again", || async {
        (command(&gateway, &["log", "stat"]).await.0 == 0).then_some(())
    })
    .await;
    assert_eq!(gateway.stop().await, 0, "followers do not hold the gateway up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_looks_keeps_no_gateway_down_for_good() {
    let cloud = cloud().await;
    let mut gateway = gateway(&cloud);
    gateway.start().await;
    assert_eq!(gateway.stop().await, 0);
    let lock = std::fs::File::open(gateway.folder().join("data/log/lock")).unwrap();
    lock.lock_shared().unwrap();
    // Not 78, after which a service manager does not try again.
    assert_eq!(gateway.try_start().await, Some(DISK));
    drop(lock);
    gateway.start().await;
}
