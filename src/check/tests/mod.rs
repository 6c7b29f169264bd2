//! The promises of `forebay check`.

mod machine;
mod paths;

use std::path::Path;

use super::disk::Space;
use super::{CheckOptions, Kernel, Report, Severity, run_with};
use crate::config::{Config, Overrides, parse};

const ROOM: Space = Space {
    size: 64 << 30,
    free: 32 << 30,
    flash_card: false,
    mount: None,
    writable: true,
    kernel: Kernel::UNKNOWN,
};

/// A gateway with a plain listener for `local`, one for devices by client id, and a cloud.
fn config(more: &str) -> Config {
    let text = format!(
        "gateway: {{id: plant-7}}\nlisteners: [{{bind: 127.0.0.1:1883}}, {{bind: 127.0.0.1:1884, identity: \"{{client_id}}\"}}]\ncloud: {{endpoint: 127.0.0.1, port: 1885}}\n{more}"
    );
    read(&text)
}

fn read(text: &str) -> Config {
    let overrides = Overrides {
        skip_files: true,
        ..Overrides::default()
    };
    parse(text, Path::new("/nowhere"), &overrides).unwrap_or_else(|error| panic!("{error}"))
}

fn check(config: &Config) -> Report {
    run_with(config, &CheckOptions::default(), forebay_wal::wall_clock(), Ok(&ROOM))
}

fn sample(config: &Config, topic: &str, identity: &str) -> Report {
    let options = CheckOptions {
        taken: 0,
        sample: Some(topic.to_owned()),
        identity: Some(identity.to_owned()),
    };
    let mut report = run_with(config, &options, forebay_wal::wall_clock(), Ok(&ROOM));
    report.findings.retain(|finding| finding.area == "sample");
    report
}

/// The one finding whose text holds `part`.
#[track_caller]
fn found<'r>(report: &'r Report, severity: Severity, part: &str) -> &'r str {
    let found: Vec<_> = report.findings.iter().filter(|finding| finding.text.contains(part)).collect();
    assert_eq!(found.len(), 1, "`{part}` in\n{report}");
    assert_eq!(found[0].severity, severity, "{report}");
    found[0].hint.as_deref().unwrap_or_default()
}

#[track_caller]
fn nothing_wrong(report: &Report) {
    assert!(report.findings.iter().all(|finding| finding.severity == Severity::Ok), "{report}");
}

#[test]
fn a_sound_configuration_has_nothing_but_ok() {
    // The limit of open files is that of the machine.
    let report = check(&config("limits: {max_connections: 50}\n"));
    nothing_wrong(&report);
    assert!(!report.failed());
    assert!(report.to_string().ends_with("\n0 errors, 0 warnings"), "{report}");
}

#[test]
fn the_memory_that_peers_can_take_is_added_up_and_compared() {
    for (memory, connections, severity) in [
        ("128MiB", 2000, Severity::Ok),
        ("64MiB", 500, Severity::Ok),
        ("64MiB", 2000, Severity::Warn),
        ("1GiB", 20_000, Severity::Ok),
    ] {
        let report = check(&read(&format!(
            "gateway: {{id: plant-7, max_memory: {memory}}}\nlisteners: [{{bind: 127.0.0.1:1883}}]\nlimits: {{max_connections: {connections}}}\n"
        )));
        found(&report, severity, "peers can make the gateway take at most");
    }
}

#[test]
fn the_report_is_one_json_object_with_its_findings() {
    let report = check(&config("routes: [{from: devices/a}, {from: devices/+, to: \"$sys/x\"}]\n"));
    let json = report.json();
    assert_eq!((json["ok"].as_bool(), json["errors"].as_u64()), (Some(false), Some(1)), "{json}");
    let finding = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["severity"] == "error")
        .unwrap();
    assert_eq!(finding["area"], "topics");
    assert!(finding["text"].as_str().unwrap().contains("reserves topics") && finding["hint"].is_string());
}

#[test]
fn faults_of_the_configuration_become_a_report_too() {
    let error = parse("gateway: {idd: x}\n", Path::new(""), &Overrides::default()).unwrap_err();
    let report = Report::of_faults(&error);
    assert!(report.failed());
    assert_eq!(report.findings.len(), error.faults.len());
    found(&report, Severity::Error, "did you mean `id`?");
}
