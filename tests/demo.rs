//! `forebay demo`, the README's first command: it ends well, and says so in the contract's words.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::gateway::forebay;

/// Exactly these, in this order (contract).
const KEYS: [&str; 11] = [
    "accepted",
    "delivered",
    "waiting",
    "expired",
    "evicted",
    "dead",
    "damaged",
    "refused",
    "lost",
    "duplicates",
    "out_of_order",
];

/// Runs the story; its result, and what it told on stderr.
async fn demo(arguments: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let (code, stdout, story) = forebay(&[&["demo", "--json"], arguments].concat(), folder.path()).await;
    assert_eq!(code, 0, "{stdout}\n{story}");
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    assert_eq!(stdout.lines().count(), 1, "one line and nothing else: {stdout}");
    let place = |key: &str| {
        stdout
            .find(&format!("\"{key}\":"))
            .unwrap_or_else(|| panic!("{key} is missing: {stdout}"))
    };
    assert!(KEYS.map(place).is_sorted(), "the keys come in their order: {stdout}");
    let balance: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(balance.as_object().unwrap().len(), KEYS.len(), "{stdout}");
    assert!(KEYS.iter().all(|key| balance[key].is_u64()), "{stdout}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    (balance, story)
}

fn is_well(balance: &Value) {
    let get = |key: &str| balance[key].as_u64().unwrap();
    assert_eq!(
        (get("lost"), get("out_of_order"), get("damaged"), get("dead")),
        (0, 0, 0, 0),
        "{balance}"
    );
    let settled: u64 = ["delivered", "waiting", "expired", "evicted", "dead", "damaged"]
        .map(get)
        .iter()
        .sum();
    assert_eq!(get("accepted"), settled, "{balance}");
    assert!(get("delivered") > 200, "the load was real: {balance}");
}

#[tokio::test]
async fn the_demo_loses_nothing_through_an_outage_and_a_kill() {
    let (balance, story) = demo(&["--devices", "5", "--rate", "10", "--for", "20s", "--outage", "5s"]).await;
    is_well(&balance);
    for part in [
        "the cloud goes away",
        "SIGKILL",
        "the gateway is back",
        "the cloud is back",
        "the ledger balances; nothing that was acked is lost",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
}

#[tokio::test]
async fn the_demo_without_a_kill_loses_nothing_either() {
    let (balance, story) = demo(&["--devices", "3", "--rate", "10", "--for", "15s", "--outage", "3s", "--no-kill"]).await;
    is_well(&balance);
    assert!(!story.contains("SIGKILL"), "{story}");
}

#[tokio::test]
async fn a_story_too_short_for_its_outage_is_refused_with_the_time_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, told) = forebay(&["demo", "--for", "10s", "--outage", "10s"], folder.path()).await;
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(told.contains("too short") && told.contains("20s"), "{told}");
}
