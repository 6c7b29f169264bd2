//! From runs to the table.

use std::fmt::Write;

use forebay_benches::figures::{Spread, verdict};
use serde::Serialize;

use crate::Engine;

/// Beside the neighbour, the p99 of the log and of the gateway is at most this many times the raw writer's in the same round.
const GOAL: f64 = 2.0;

/// One engine, once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) round: u32,
    pub(crate) engine: Engine,
    pub(crate) is_busy: bool,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// Files of 1 GB that the neighbour began meanwhile.
    pub(crate) files: u32,
}

impl Run {
    pub(crate) fn summary(&self) -> String {
        format!(
            "{:?}, neighbour's files {}: p50 {:.2} ms, p99 {:.2}, max {:.1}",
            self.engine, self.files, self.p50_ms, self.p99_ms, self.max_ms
        )
    }
}

/// A row per engine, alone and beside the neighbour; ratios are between runs of the same round.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "\n| log | neighbour | p50, ms | p99, ms | longest, ms | p99 to the raw file's | at most 2 |\n|---|---|---:|---:|---:|---:|---|\n",
    );
    for engine in [Engine::Forebay, Engine::Gateway, Engine::Raw] {
        for is_busy in [false, true] {
            let chosen = || runs.iter().filter(move |run| run.engine == engine && run.is_busy == is_busy);
            let of = |value: fn(&Run) -> f64| Spread::of(chosen().map(value));
            if of(|run| run.p99_ms).median.is_nan() {
                continue;
            }
            let raw = |round| {
                runs.iter()
                    .find(|run| run.engine == Engine::Raw && run.is_busy == is_busy && run.round == round)
                    .map(|run| run.p99_ms)
            };
            let ratio = Spread::of(chosen().filter_map(|run| Some(run.p99_ms / raw(run.round)?)));
            let is_judged = engine != Engine::Raw && is_busy && !ratio.median.is_nan();
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                engine.name(),
                if is_busy { "writes" } else { "none" },
                of(|run| run.p50_ms),
                of(|run| run.p99_ms),
                of(|run| run.max_ms),
                if engine == Engine::Raw { "1".to_owned() } else { ratio.to_string() },
                if is_judged { verdict(ratio.median <= GOAL) } else { "-" },
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
        }
    }
}
