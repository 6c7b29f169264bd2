//! Raises the limit of open files to what the connections need.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::check::descriptors::{Shortage, needed, shortage};
use crate::config::Config;

/// Raises the soft limit as far as it is needed and allowed, and lowers `limits.max_connections` to what there is. `None` if
/// there is enough.
pub(super) fn fit(config: &mut Config) -> Option<Shortage> {
    let needed = needed(config.limits.max_connections);
    let limit = raised(needed);
    let shortage = shortage(config, limit)?;
    tracing::warn!(
        limit,
        needed,
        configured = shortage.configured,
        used = shortage.used,
        "limits.max_connections is lowered: the process may not open more files; raise LimitNOFILE= of the service, or `ulimit -n`"
    );
    config.limits.max_connections = shortage.used;
    config.limits.max_pending = config.limits.max_pending.min(shortage.used);
    Some(shortage)
}

/// The soft limit, raised to `needed` where the hard limit allows it.
fn raised(needed: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    let wanted = needed.min(hard);
    if wanted <= soft {
        return soft;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(error) => {
            // A filter of system calls may refuse it; then the soft limit is what there is.
            if error != Errno::PERM {
                tracing::debug!(%error, "the limit of open files could not be raised");
            }
            soft
        }
    }
}
