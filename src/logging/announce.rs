//! A line on stdout that nothing waits for: stdout may be closed, or a pipe that nobody reads.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;

/// Writes a line to stdout on a thread of its own. A line that cannot be written is only logged: the gateway serves all
/// the same.
pub(crate) fn announce(line: String) {
    let write = move || {
        // Not through `std::io::stdout`, whose lock the end of the process would wait for.
        let written = std::io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .and_then(|stdout| File::from(stdout).write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            tracing::debug!(%error, "the ready line could not be written to stdout");
        }
    };
    let started = std::thread::Builder::new().name("announce".to_owned()).spawn(write);
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for the ready line on stdout");
    }
}
