//! `forebay run`.

use std::process::ExitCode;

use super::{ConfigArgs, report};
use crate::gateway::{self, Exit};
use crate::logging::LogArgs;

/// The disk or the log failed at start (EX_IOERR).
const DISK: u8 = 74;
/// Something in us failed (EX_SOFTWARE).
const INTERNAL: u8 = 70;

pub(super) fn run(args: &ConfigArgs, log: &LogArgs) -> anyhow::Result<ExitCode> {
    let config = match args.load() {
        Ok(config) => config,
        Err(error) => return Ok(report(&error)),
    };
    log.start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(gateway::run(config, args.origin()));
    Ok(match exit {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            let code = match &exit {
                Exit::Configuration(_) => crate::config::EXIT_CODE,
                Exit::Disk(_) => DISK,
                Exit::Internal(_) => INTERNAL,
            };
            eprintln!("forebay: {:#}", exit.into_error());
            ExitCode::from(code)
        }
    })
}
