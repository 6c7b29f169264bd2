//! From runs to the table.

use std::fmt::Write;

use forebay_benches::figures::{Spread, thousands, verdict};
use serde::Serialize;

use crate::{Engine, Shape};

/// Acks per second with 2,000 in flight, at least.
const RATE: f64 = 20_000.0;
/// Syncs that 99 of 100 acks take at a paced rate, at most.
const P99_SYNCS: f64 = 2.5;

/// One engine, once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) round: u32,
    pub(crate) engine: Engine,
    pub(crate) shape: Shape,
    pub(crate) acks_per_s: f64,
    /// Ack latencies in syncs as measured.
    pub(crate) p50_syncs: f64,
    pub(crate) p99_syncs: f64,
    pub(crate) p999_syncs: f64,
}

impl Run {
    pub(crate) fn summary(&self) -> String {
        format!(
            "{:?}, {:?}: {:.0} acks/s, p50 {:.2} syncs, p99 {:.2}, p99.9 {:.2}",
            self.engine, self.shape, self.acks_per_s, self.p50_syncs, self.p99_syncs, self.p999_syncs
        )
    }
}

/// A row per engine, the goals where they are held.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut text =
        String::from("\n| log | load | acks/s | ack p50, syncs | p99 | p99.9 | goal | |\n|---|---|---:|---:|---:|---:|---|---|\n");
    for engine in [Engine::Forebay, Engine::Gateway, Engine::Raw, Engine::Sqlite] {
        for shape in [Shape::Closed, Shape::Paced] {
            let of = |value: fn(&Run) -> f64| {
                let chosen = runs.iter().filter(|run| run.engine == engine && run.shape == shape);
                Spread::of(chosen.map(value))
            };
            let (rate, p99) = (of(|run| run.acks_per_s), of(|run| run.p99_syncs));
            if rate.median.is_nan() {
                continue;
            }
            let goal = match (engine, shape) {
                (Engine::Raw | Engine::Sqlite, _) => "- | ".to_owned(),
                (_, Shape::Closed) => format!("at least {}/s | {}", thousands(RATE), verdict(rate.median >= RATE)),
                (_, Shape::Paced) => format!("p99 at most {P99_SYNCS} | {}", verdict(p99.median <= P99_SYNCS)),
            };
            writeln!(
                text,
                "| {} | {} | {} | {} | {p99} | {} | {goal} |",
                engine.name(),
                shape.name(),
                thousands(rate.median),
                of(|run| run.p50_syncs),
                of(|run| run.p999_syncs),
            )
            .ok();
        }
    }
    text
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Engine::Forebay => "Forebay's log",
            Engine::Gateway => "the whole gateway",
            Engine::Raw => "raw file",
            Engine::Sqlite => "SQLite",
        }
    }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Closed => "all in flight",
            Shape::Paced => "paced",
        }
    }
}
