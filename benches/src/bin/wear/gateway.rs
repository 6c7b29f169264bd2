//! The whole gateway over MQTT: what the log writes is the same, what else it writes is in it.

use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use forebay_benches::certificates::Certificates;
use forebay_benches::generator::{self, Edge, Load};
use forebay_benches::sink::Sink;
use forebay_benches::system::{gateway_config, start_gateway};
use forebay_broker::codec::Version;
use serde_json::json;

use crate::cell::Cell;
use crate::meter::Meter;
use crate::report::Run;

/// Runs the gateway with its data on the metered place and a cloud that acks at once.
pub(crate) fn measure(cell: &Cell, meter: &Meter, program: &Path, certificates: &Certificates) -> anyhow::Result<Run> {
    let sink = Sink::start()?;
    let mut config = gateway_config(certificates, meter.path())?;
    config["gateway"]["commit_wait"] = json!(format!("{}ms", cell.wait.as_millis()));
    config["gateway"]["keep_free"] = json!("0B");
    config["cloud"]["port"] = json!(sink.address().port());
    config["cloud"]["in_flight"] = json!(1000);
    let server = start_gateway(program, &config, meter.path())?;
    let load = Load {
        address: server.plain,
        name: "localhost".into(),
        tls: None,
        version: Version::V311,
        clients: 50,
        in_flight: NonZeroU16::MIN.saturating_add(99),
        size: cell.payload,
        warmup: cell.warmup,
        duration: cell.window,
        rate: Some(cell.rate),
        topic: "devices/{client}/telemetry".into(),
    };
    let (mut before, mut after) = (None, None);
    let outcome = generator::run(&load, |edge| {
        let slot = match edge {
            Edge::Start => &mut before,
            Edge::End => &mut after,
        };
        *slot = Some(meter.written(Some(server.pid()))?);
        Ok(())
    })?;
    if !outcome.is_clean(&load) {
        bail!("the gateway's load went wrong: {outcome:?}; its log ends:\n{}", server.log_end());
    }
    server.stop()?;
    let written = after.context("the window never closed")? - before.context("the window never opened")?;
    Ok(Run::new(cell, matches!(meter, Meter::Block(_)), written, outcome.acked, 0))
}

/// The waits at which it is worth it: those of the goals.
pub(crate) fn is_wanted(rate: f64, wait: Duration) -> bool {
    let goal = if rate >= 1000.0 { 100 } else { 500 };
    rate >= 10.0 && wait == Duration::from_millis(goal)
}
