//! `ingest`: from measurements to the table people read.

use std::fmt::Write;

use serde::Serialize;

use crate::figures::{Spread, micros, thousands};
use crate::generator::Outcome;
use crate::system::System;

/// One server under one load, once.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// Plain TCP or mutual TLS.
    pub link: &'static str,
    /// Clients and window, or the pace.
    pub load: &'static str,
    /// Who.
    #[serde(serialize_with = "name")]
    pub system: System,
    /// What the clients saw.
    pub outcome: Outcome,
    /// The server's CPU seconds per 100,000 acks, handshakes and warm-up left out.
    pub cpu_s_per_100k: f64,
    /// The server's peak memory in MiB.
    pub rss_mib: f64,
    /// Bytes the server sent to storage per ack within the window.
    pub written_per_ack: f64,
}

/// The median of each number over the rounds.
#[derive(Debug, Clone, Copy)]
struct Medians {
    rate: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    cpu: f64,
    rss: f64,
    written: f64,
    generator: f64,
}

/// A markdown table of medians and one of ratios; rows come in the order in which their first measurement was taken.
pub fn markdown(all: &[Measurement], duration_s: f64) -> String {
    let mut text = String::from(
        "| link | load | server | acks/s | p50 | p99 | p99.9 | CPU s per 100k | peak RSS | written per ack | generator's CPU |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut ratios = String::from(
        "| link | load | Forebay against | rate | p50 | p99 | p99.9 | CPU per ack |\n|---|---|---|---:|---:|---:|---:|---:|\n",
    );
    let mut compared = false;
    for (link, load) in cells(all) {
        let of_cell: Vec<_> = all.iter().filter(|one| one.link == link && one.load == load).collect();
        let mut systems: Vec<_> = of_cell.iter().map(|one| one.system).collect();
        systems.sort_unstable();
        systems.dedup();
        let medians = |system| Medians::of(&of_cell.iter().filter(|one| one.system == system).copied().collect::<Vec<_>>());
        for &system in &systems {
            let of = medians(system);
            let line = format!(
                "| {link} | {load} | {} | {} | {} | {} | {} | {:.2} | {:.0} MiB | {:.0} B | {:.0} % |",
                system.name(),
                thousands(of.rate),
                micros(of.p50),
                micros(of.p99),
                micros(of.p999),
                of.cpu,
                of.rss,
                of.written,
                of.generator / duration_s * 100.0,
            );
            text.push_str(&line);
            text.push('\n');
        }
        if systems.contains(&System::Forebay) {
            let ours = medians(System::Forebay);
            for &system in systems.iter().filter(|system| **system != System::Forebay) {
                let theirs = medians(system);
                let line = format!(
                    "| {link} | {load} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |\n",
                    system.name(),
                    ours.rate / theirs.rate,
                    ours.p50 / theirs.p50,
                    ours.p99 / theirs.p99,
                    ours.p999 / theirs.p999,
                    ours.cpu / theirs.cpu,
                );
                ratios.push_str(&line);
                compared = true;
            }
        }
    }
    if compared {
        write!(text, "\n{ratios}").ok();
    }
    text
}

impl Medians {
    fn of(rounds: &[&Measurement]) -> Medians {
        let median = |value: fn(&Measurement) -> f64| Spread::of(rounds.iter().map(|round| value(round))).median;
        Medians {
            rate: median(|one| one.outcome.acked_per_s),
            p50: median(|one| one.outcome.p50_us),
            p99: median(|one| one.outcome.p99_us),
            p999: median(|one| one.outcome.p999_us),
            cpu: median(|one| one.cpu_s_per_100k),
            rss: median(|one| one.rss_mib),
            written: median(|one| one.written_per_ack),
            generator: median(|one| one.outcome.generator_cpu_s),
        }
    }
}

fn cells(all: &[Measurement]) -> Vec<(&'static str, &'static str)> {
    let mut cells = Vec::new();
    for one in all {
        if !cells.contains(&(one.link, one.load)) {
            cells.push((one.link, one.load));
        }
    }
    cells
}

fn name<S: serde::Serializer>(system: &System, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(system.name())
}
