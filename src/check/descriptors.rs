//! File descriptors: as many as the connections need, and some kept for everything else.

use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// Kept for the log's segments, `state.redb`, the cloud, the admin API with its 64 connections, and the runtime.
const KEPT: u64 = 112;

/// How the limit of open files bounds the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// Files that the process may have open.
    pub(crate) limit: u64,
    /// Files that the configured connections need.
    pub(crate) needed: u64,
    /// `limits.max_connections` as configured, and what of it is used.
    pub(crate) configured: u32,
    pub(crate) used: u32,
}

/// Whether this process could have the files that the configuration needs; it changes nothing.
pub(crate) fn look(config: &Config) -> Option<Shortage> {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    shortage(config, hard)
}

/// What is missing if the process may have this many files open; `None` if nothing is.
pub(crate) fn shortage(config: &Config, limit: u64) -> Option<Shortage> {
    let configured = config.limits.max_connections;
    let needed = needed(configured);
    (limit < needed).then(|| Shortage {
        limit,
        needed,
        configured,
        used: fitting(limit),
    })
}

/// A tenth more connections is kept for fixed words, and 64 wait at most.
pub(crate) fn needed(connections: u32) -> u64 {
    u64::from(connections) + u64::from(connections.div_ceil(10)) + KEPT
}

/// The most connections that this many files allow, one at least.
fn fitting(limit: u64) -> u32 {
    let connections = limit.saturating_sub(KEPT) * 10 / 11;
    u32::try_from(connections).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_needs_no_more_than_there_is_and_one_more_would() {
        for limit in [113, 256, 1024, 4096, 16_384, 1 << 20] {
            let fits = fitting(limit);
            assert!(fits == 1 || needed(fits) <= limit, "{limit}: {fits}");
            assert!(needed(fits + 2) > limit, "{limit}: {fits}");
        }
        assert_eq!((fitting(0), fitting(256), needed(2000)), (1, 130, 2312));
    }
}
