//! `docs/metrics.md`, made from the catalogue.

use super::catalogue::{Instrument, Kind, catalogue};

const HEAD: &str = "# Metrics

<!-- Made from src/telemetry/catalogue/mod.rs: FOREBAY_BLESS=1 cargo test --bin forebay metrics_page -->

`/metrics` on `admin.bind` (127.0.0.1:9464 by default), for Prometheus. Counters count since the process started. The
ledger, which survives restarts, is in `/status` ([status.md](status.md)). Series with the label `reason`, `code` or
`stream` exist for every known value. Without a `cloud` in the configuration the cloud's metrics are missing.

A *listed* metric has a series for each thing that is so now, and no other: an alert on `forebay_device_silent_seconds > 0`
resolves by itself. Only listed metrics have names of devices or topics as labels. Each has at most 300 series, those of
the signals 100, the worst first. The configuration bounds the others: about 350 series.
";

/// The catalogue as a page.
#[must_use]
pub(crate) fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for (heading, instruments) in catalogue() {
        page.push_str(&format!("\n## {heading}\n\n"));
        page.push_str("| name | kind | unit | labels | what it says |\n|---|---|---|---|---|\n");
        for instrument in *instruments {
            let labels: Vec<_> = instrument.labels.iter().map(|label| format!("`{label}`")).collect();
            let kind = match instrument.kind {
                Kind::Counter(_) => "counter",
                Kind::Gauge(_) => "gauge",
                Kind::Histogram(_) => "histogram",
                Kind::ListedCounter(_) => "listed counter",
                Kind::ListedGauge(_) => "listed gauge",
            };
            let Instrument { name, unit, question, .. } = instrument;
            page.push_str(&format!("| `{name}` | {kind} | {unit} | {} | {question} |\n", labels.join(", ")));
        }
    }
    page
}
