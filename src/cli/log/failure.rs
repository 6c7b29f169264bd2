//! How a command about the log ends.

use std::process::ExitCode;

use crate::cli::FAILED;

/// Why a command failed, sorted by exit code.
pub(in crate::cli) enum Failure {
    /// The configuration: told already.
    Configuration(ExitCode),
    /// 1.
    Failed(anyhow::Error),
    /// 74.
    Disk(anyhow::Error),
    /// 70.
    Internal(anyhow::Error),
    /// The reader of stdout has closed it: no failure at all.
    Unwanted,
}

/// The exit code of a command that did only a part.
pub(super) fn partly(is_whole: bool) -> ExitCode {
    if is_whole { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}
