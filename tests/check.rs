//! The command line as a person meets it: configurations that cannot be used, what `check` tells, helps.
//!
//! The texts are in `tests/snapshots/`; `FOREBAY_BLESS=1 cargo test --test check` writes them anew.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::gateway::forebay;
use tempfile::TempDir;

const CONFIG: i32 = 78;

const GOOD: &str = r##"gateway: {id: plant-7, data_dir: data, keep_free: 0B, survive: {outage: 1h, rate: 40/s, size: 256B}}
listeners: [{bind: "127.0.0.1:0", identity: "{client_id}"}]
streams: [{name: telemetry, max_bytes: 1GiB, when_full: refuse}]
access:
  - {who: local, publish: ["#"], subscribe: ["#"]}
  - {who: "*", publish: ["devices/{device}/#"], subscribe: ["devices/{device}/commands/#"], deny: ["devices/{device}/factory/#"]}
routes: [{from: "devices/+/telemetry/#", to: "dt/{gateway}/{device}/{#}"}, {from: "debug/#", local: true}]
cloud: {profile: mqtt, endpoint: 127.0.0.1}
admin: {bind: "127.0.0.1:0"}
"##;

/// Everything in it is wrong.
const BAD: &str = r##"gatway:
  id: plant-7
gateway:
  id: "plant 7"
  max_disk: much
  commit_wiat: 500ms
listeners:
  - bind: 127.0.0.1:1883
    identity: local
  - bind: 127.0.0.1:1883
    identity: "{cnn}"
  - bind: 0.0.0.0:8883
    tls: {certificate: certs/no.pem}
streams:
  - {name: telemetry, max_bytes: 1GiB, when_full: drop_oldst}
  - {name: alarms, max_bytes: 0}
  - {name: alarms}
routes:
  - {from: "devices/#/x", stream: telemetry}
  - {from: "alarms/#", stream: alarm}
  - {from: "other/#", stream: telemetry, ack: cloud}
cloud: {endpoint: "mqtt://example.com", profile: mqqt, in_flight: many}
watch: [{topic: a}]
commands: [{from: a}]
"##;

fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("forebay.yaml"), config).unwrap();
    folder
}

/// The text is as in `tests/snapshots/NAME.txt`.
fn is_as_ever(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(format!("{name}.txt"));
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} is no longer so; if that is meant: FOREBAY_BLESS=1 cargo test --test check\n{text}",
        path.display()
    );
}

#[tokio::test]
async fn all_faults_of_a_configuration_are_told_at_once_by_run_and_by_check() {
    let folder = folder(BAD);
    let (code, stdout, told) = forebay(&["run"], folder.path()).await;
    assert_eq!((code, stdout.as_str()), (CONFIG, ""), "{told}");
    is_as_ever("faults", &told);
    let (code, _, also_told) = forebay(&["check"], folder.path()).await;
    assert_eq!((code, also_told), (CONFIG, told));
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

#[tokio::test]
async fn each_fault_has_its_path_line_value_reason_and_the_nearest_name() {
    let folder = folder(BAD);
    let (code, stdout, _) = forebay(&["check", "--json"], folder.path()).await;
    assert_eq!(code, CONFIG);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["ok"], false);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(report["errors"], findings.len());
    for parts in [
        ["gatway (line 1)", "", "did you mean `gateway`?"],
        ["gateway.commit_wiat (line 6)", "value:  500ms", "did you mean `commit_wait`?"],
        ["listeners[1].identity (line 11)", "value:  {cnn}", "did you mean `{cn}`?"],
        [
            "streams[0].when_full (line 15)",
            "value:  drop_oldst",
            "did you mean `drop_oldest`?",
        ],
        ["routes[1].stream (line 20)", "value:  alarm", "did you mean `alarms`?"],
        ["routes[2].ack (line 21)", "value:  cloud", "not in this version"],
        ["cloud.profile (line 22)", "value:  mqqt", "did you mean `mqtt`?"],
    ] {
        let is_told = |finding: &Value| {
            let text = finding["text"].as_str().unwrap();
            text.starts_with(parts[0]) && text.contains("reason: ") && parts.iter().all(|part| text.contains(part))
        };
        assert!(findings.iter().any(is_told), "{parts:?} in {stdout}");
    }
}

#[tokio::test]
async fn a_file_that_is_missing_or_no_yaml_or_overridden_badly_is_told_with_78() {
    let folder = folder("gateway: {id: a\n  b");
    let (code, _, told) = forebay(&["run", "-c", "nowhere.yaml"], folder.path()).await;
    assert!(code == CONFIG && told.contains("nowhere.yaml"), "{code} {told}");
    let (code, _, told) = forebay(&["run"], folder.path()).await;
    assert!(code == CONFIG && told.contains("line"), "{code} {told}");

    std::fs::write(folder.path().join("forebay.yaml"), GOOD).unwrap();
    let (code, _, told) = forebay(
        &["run", "--set", "gateway.max_dsk=2GiB", "--set", "gateway.keep_free=-1"],
        folder.path(),
    )
    .await;
    assert_eq!(code, CONFIG);
    is_as_ever("overrides", &told);
}

#[tokio::test]
async fn check_says_what_is_well_and_exits_0() {
    let folder = folder(GOOD);
    let (code, text, errors) = forebay(&["check"], folder.path()).await;
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(
        text.ends_with("0 errors, 0 warnings\n") && text.contains("needs 56.9MiB of the 1GiB"),
        "{text}"
    );
    let (code, json, _) = forebay(&["check", "--json"], folder.path()).await;
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &report["ok"], json.lines().count()), (0, &true.into(), 1));
    assert!(!folder.path().join("data").exists(), "checking leaves nothing behind");
}

#[tokio::test]
async fn check_finds_what_cannot_work_although_each_key_is_right() {
    let impossible = GOOD
        .replace("max_bytes: 1GiB", "max_bytes: 1MiB")
        .replace("local: true", "to: x")
        .replace("who: local, publish: [\"#\"]", "who: local, publish: []");
    let folder = folder(&impossible);
    let (code, text, _) = forebay(&["check"], folder.path()).await;
    assert_eq!(code, CONFIG, "{text}");
    for part in ["error  disk", "set its max_bytes to", "routes[1] (debug/#)"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_sample_shows_where_a_message_goes_and_why() {
    let folder = folder(GOOD);
    let mut shown = String::new();
    for (topic, identity) in [
        ("devices/board-1/telemetry/env", "board-1"),
        ("devices/board-1/telemetri/env", "board-1"),
        ("devices/board-2/telemetry/env", "board-1"),
        ("devices/board-1/factory/x", "board-1"),
        ("debug/x", "local"),
        ("devices/+/telemetry/env", "board-1"),
        ("devices/a/telemetry/env", "+"),
    ] {
        let (code, text, errors) = forebay(&["check", "--sample", topic, "--as", identity], folder.path()).await;
        assert_eq!((code, errors.as_str()), (0, ""));
        shown += &format!("--sample {topic} --as {identity}\n");
        let lines = text.lines().skip_while(|line| !line.contains("  sample "));
        shown.extend(lines.flat_map(|line| [line, "\n"]));
        shown.push('\n');
    }
    is_as_ever("samples", &shown);

    let (code, json, _) = forebay(
        &["check", "--json", "--sample", "devices/b/telemetry/env", "--as", "b"],
        folder.path(),
    )
    .await;
    let report: Value = serde_json::from_str(&json).unwrap();
    let steps = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["area"] == "sample")
        .count();
    assert_eq!((code, steps), (0, 4), "{json}");
}

#[tokio::test]
async fn every_help_fits_a_screen_and_has_examples_that_parse() {
    let folder = folder(GOOD);
    let mut seen = 0;
    for command in [
        &[][..],
        &["run"],
        &["check"],
        &["demo"],
        &["certs"],
        &["certs", "ca"],
        &["certs", "server"],
        &["certs", "device"],
        &["certs", "cloud"],
        &["certs", "show"],
        &["log"],
        &["log", "stat"],
        &["log", "ls"],
        &["log", "tail"],
        &["log", "export"],
        &["log", "verify"],
        &["log", "salvage"],
        &["log", "replay"],
        &["dead"],
        &["dead", "ls"],
        &["dead", "show"],
        &["dead", "requeue"],
        &["dead", "drop"],
        &["dead", "export"],
        &["audit"],
    ] {
        let (code, text, _) = forebay(&[command, &["--help"]].concat(), folder.path()).await;
        assert_eq!(code, 0);
        assert!(text.lines().count() <= 45, "{command:?} has {} lines", text.lines().count());
        let examples: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("  ") && line.contains("forebay ") && !line.contains('`'))
            .collect();
        assert!(!examples.is_empty(), "{command:?} has no example: {text}");
        for example in examples {
            // What clap rejects it answers with 2; `--help` at the end parses all before it and does nothing.
            let words: Vec<_> = example
                .split("  ")
                .filter(|part| part.contains("forebay "))
                .flat_map(str::split_whitespace)
                .collect();
            for words in words
                .split(|word| *word == "&&" || *word == "forebay")
                .filter(|words| !words.is_empty() && !words[0].contains('='))
            {
                let (code, _, errors) = forebay(&[words, &["--help"]].concat(), folder.path()).await;
                assert_eq!(code, 0, "{example}: {errors}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "{seen} examples were tried");
}
