//! Every fault names itself within a minute: a real Prometheus with the shipped rules and intervals, real gateways, devices
//! and the stand-in cloud, through the twelve faults of docs/detection.md.
//!
//! The faults run at once, each on a device or a gateway of its own. For each the test takes the seconds from cause to
//! alert and from cure to resolved, holds the alert's words against what is wrong, and its runbook's page against the file
//! system. A gateway that nothing is done to, under load, with a cloud that restarts as AWS does, raises nothing: for five
//! minutes, or for as many seconds as `FOREBAY_UNDISTURBED` says.
//!
//! `FOREBAY_BLESS=1 cargo test --test detection` also writes the tables of docs/detection.md.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod calm;
mod expiry;
mod faults;
mod fleet;
mod judge;
mod mosquitto;
mod panels;
mod plants;
mod table;

use std::sync::Arc;
use std::time::Duration;

use judge::Judge;
use plants::Sites;
use support::prometheus::{Job, Prometheus, root};
use tokio::time::Instant;

/// How long a fault may take to be named before the test gives up. The promise is a minute; docs/detection.md has what it
/// took, and this machine may be busy.
const NAMED: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn each_of_the_twelve_faults_names_itself() {
    let sites = Sites::start().await;
    let jobs = [Job {
        name: "forebay",
        targets: sites.targets().await,
    }];
    let prometheus = Arc::new(Prometheus::start(&[root().join("dashboards/rules/forebay.yml")], &jobs).await);
    let judge = Judge::start(Arc::clone(&prometheus));
    let began = Instant::now();
    sites.are_known(&prometheus).await;
    judge.has_seen_nothing();

    let rows = faults::all(&sites, &judge).await;

    for row in &rows {
        assert!(root().join(&row.runbook).is_file(), "{} has no page {}", row.alert, row.runbook);
    }
    panels::all_have_data(&prometheus, began.elapsed().as_secs() + 5).await;
    table::write(&rows, &judge.others(), began.elapsed());
    sites.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undisturbed_gateway_raises_nothing() {
    let calm = calm::raises_nothing().await;
    table::write_calm(&calm);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_faults_against_mosquitto_with_common_rules() {
    let raised = mosquitto::all().await;
    table::write_comparison(&raised);
}
