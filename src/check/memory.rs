//! The most memory that peers can make the gateway take, computed from the table of bounds.

use forebay_broker::{Bound, Limits};

use super::report::Report;
use crate::config::{Config, show_bytes};
use crate::gateway::limits;

const AREA: &str = "memory";

pub(super) fn check(config: &Config, report: &mut Report) {
    let most = of_peers(&limits(config));
    let memory = config.gateway.max_memory;
    let text = format!(
        "peers can make the gateway take at most {} of memory (gateway.max_memory: {}), besides what it takes by itself, some 40MiB",
        show_bytes(most.next_multiple_of(1 << 20)),
        show_bytes(memory)
    );
    if most > memory {
        let hint = "raise gateway.max_memory, or lower limits.max_connections or limits.max_topics";
        report.warn(AREA, text, hint);
    } else {
        report.ok(AREA, text);
    }
}

/// The sum over the table.
fn of_peers(limits: &Limits) -> u64 {
    Bound::ALL
        .iter()
        .map(|bound| (bound.line().memory)(limits))
        .fold(0, u64::saturating_add)
}
