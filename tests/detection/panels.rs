//! Every query of every panel returned data at some moment of the run.

use serde_json::Value;

use super::support::prometheus::{Prometheus, root};

/// The dashboards.
pub(crate) const BOARDS: [&str; 4] = ["overview", "devices", "log-and-disk", "bridge"];

pub(crate) async fn all_have_data(prometheus: &Prometheus, back: u64) {
    let mut empty = Vec::new();
    let mut asked = 0;
    for board in BOARDS {
        let path = root().join(format!("dashboards/grafana/{board}.json"));
        let board: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap().replace("$instance", ".+");
                assert!(!query.contains('$'), "a variable that nobody fills: {query}");
                asked += 1;
                if prometheus.ranged(&query, back).await.is_empty() {
                    empty.push(format!("{} / {}: {query}", board["title"], panel["title"]));
                }
            }
        }
    }
    assert!(empty.is_empty(), "no data in the whole run: {empty:#?}");
    println!("{asked} queries of panels returned data");
}
