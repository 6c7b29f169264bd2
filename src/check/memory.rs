//! The most memory that peers can make the gateway take, computed from the table of bounds; and the files that it may open.

use forebay_broker::{Bound, Limits};

use super::descriptors;
use super::report::Report;
use crate::config::{Config, show_bytes};

const AREA: &str = "memory";

pub(super) fn check(config: &Config, report: &mut Report) {
    let most = of_peers(&config.front_limits());
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

/// The files that connections need, against the limit of this process.
pub(super) fn files(config: &Config, report: &mut Report) {
    match descriptors::look(config) {
        None => report.ok(
            "descriptors",
            format!(
                "this process may open the files that {} connections need",
                config.limits.max_connections
            ),
        ),
        Some(shortage) => report.warn(
            "descriptors",
            format!(
                "this process may open {} files and limits.max_connections ({}) needs {}: only {} connections are taken",
                shortage.limit, shortage.configured, shortage.needed, shortage.used
            ),
            "raise LimitNOFILE= of the service or `ulimit -n`, or lower limits.max_connections",
        ),
    }
}

/// The sum over the table.
fn of_peers(limits: &Limits) -> u64 {
    Bound::ALL
        .iter()
        .map(|bound| (bound.line().memory)(limits))
        .fold(0, u64::saturating_add)
}
