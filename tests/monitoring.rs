//! `dashboards/` judged by Prometheus' and Alertmanager's own tools, and held against the runbooks and the catalogue of metrics.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use serde_yaml::Value;
use support::program::{program, run};
use support::prometheus::root;

const RULES: &str = "dashboards/rules/forebay.yml";
const RULE_TESTS: &str = "dashboards/rules/forebay_test.yml";
const BOARDS: [&str; 4] = ["overview", "devices", "log-and-disk", "bridge"];
/// What a page must tell a person who was just woken.
const HEADINGS: [&str; 4] = ["## What it means", "## How to confirm", "## What to do", "## What not to do"];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rules that raise alerts, with their names.
fn alerts() -> Vec<(String, Value)> {
    let rules: Value = serde_yaml::from_str(&read(RULES)).unwrap();
    let groups = rules["groups"].as_sequence().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_sequence().unwrap());
    rules
        .filter_map(|rule| Some((rule["alert"].as_str()?.to_owned(), rule.clone())))
        .collect()
}

/// Runs a tool over files of `dashboards/`; what it says if it is not content.
async fn is_content(tool: &str, package: &str, arguments: &[&str], file: &str) {
    let path = root().join(file).display().to_string();
    let said = run(&program(tool, package), &[arguments, &[&path]].concat()).await;
    let words = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{tool} {arguments:?} {file}: {words}");
}

#[tokio::test]
async fn prometheus_and_alertmanager_take_their_files() {
    is_content("promtool", "prometheus", &["check", "config"], "dashboards/prometheus.yml").await;
    is_content(
        "amtool",
        "prometheus-alertmanager",
        &["check-config"],
        "dashboards/alertmanager.yml",
    )
    .await;
}

#[tokio::test]
async fn each_alert_fires_when_its_fault_is_there_and_not_before() {
    is_content("promtool", "prometheus", &["test", "rules"], RULE_TESTS).await;
    let tests: Value = serde_yaml::from_str(&read(RULE_TESTS)).unwrap();
    let cases = || {
        let tests = tests["tests"].as_sequence().unwrap().iter();
        tests.flat_map(|test| test["alert_rule_test"].as_sequence().unwrap())
    };
    for (name, _) in alerts() {
        let of_it = |fires: bool| {
            let is_empty = |case: &Value| case["exp_alerts"].as_sequence().is_none_or(Vec::is_empty);
            cases().any(|case| case["alertname"] == name.as_str() && is_empty(case) != fires)
        };
        assert!(of_it(true) && of_it(false), "{RULE_TESTS} must have {name} fire, and not fire");
    }
}

#[test]
fn each_alert_says_what_and_where_and_has_a_page() {
    let mut pages = BTreeSet::new();
    for (name, rule) in alerts() {
        let text = |field: &str| {
            rule["annotations"][field]
                .as_str()
                .unwrap_or_else(|| panic!("{name} lacks `{field}`"))
                .to_owned()
        };
        let summary = text("summary");
        assert!(
            summary.contains("$labels.gateway") || summary.contains("$labels.instance"),
            "{name} does not say where: {summary}"
        );
        assert!(!text("description").is_empty());
        let severity = rule["labels"]["severity"].as_str();
        assert!(
            severity.is_some_and(|severity| ["critical", "warning", "info"].contains(&severity)),
            "{name}: {severity:?}"
        );
        let page = text("runbook");
        assert_eq!(page, format!("docs/runbooks/{name}.md"));
        let words = read(&page);
        for heading in HEADINGS {
            assert!(words.contains(&format!("\n{heading}\n\n")), "{page} lacks `{heading}`");
        }
        pages.insert(name + ".md");
    }
    let found: BTreeSet<_> = std::fs::read_dir(root().join("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, pages, "pages and alerts");
}

/// A page that sends its reader to another one sends to one that exists.
#[test]
fn links_between_the_pages_lead_somewhere() {
    for (name, _) in alerts() {
        let page = read(&format!("docs/runbooks/{name}.md"));
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(root().join("docs/runbooks").join(link).is_file(), "{name}.md links to {link}");
        }
    }
}

/// A misspelt metric in a query raises nothing and shows nothing for ever.
#[test]
fn rules_and_dashboards_ask_for_metrics_that_exist() {
    let page = read("docs/metrics.md");
    let catalogue: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(catalogue.len() > 100, "docs/metrics.md has another form");
    let boards = BOARDS.map(|board| format!("dashboards/grafana/{board}.json"));
    for file in boards.iter().map(String::as_str).chain([RULES]) {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        for word in words.filter(|word| word.starts_with("forebay_")) {
            let known = ["", "_bucket", "_sum", "_count"]
                .iter()
                .any(|suffix| catalogue.contains(word.strip_suffix(suffix).unwrap_or("")));
            assert!(known, "{file} asks for `{word}`, which docs/metrics.md does not have");
        }
    }
}

#[test]
fn each_panel_says_what_it_answers_and_the_overview_has_six_at_most() {
    for board in BOARDS {
        let board: serde_json::Value = serde_json::from_str(&read(&format!("dashboards/grafana/{board}.json"))).unwrap();
        let panels = board["panels"].as_array().unwrap();
        assert!(board["uid"] != "forebay-overview" || panels.len() <= 6, "{} tiles", panels.len());
        for panel in panels {
            let text = |field: &str| panel[field].as_str().unwrap_or_default();
            assert!(
                !text("title").is_empty() && text("description").ends_with('.'),
                "{}",
                panel["title"]
            );
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}", panel["title"]);
            let targets = panel["targets"].as_array().unwrap();
            assert!(
                !targets.is_empty()
                    && targets
                        .iter()
                        .all(|target| target["expr"].as_str().is_some_and(|expr| expr.contains("$instance"))),
                "{}",
                panel["title"]
            );
        }
    }
}
