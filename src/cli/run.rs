//! `forebay run`.

use std::process::ExitCode;

use super::{ConfigArgs, DISK, INTERNAL};
use crate::gateway::{self, Exit};
use crate::logging::{self, LogArgs};

pub(super) fn run(args: &ConfigArgs, log: &LogArgs) -> anyhow::Result<ExitCode> {
    log.start()?;
    let code = serve(args);
    logging::flush();
    code
}

/// Runs the gateway; from here on stderr belongs to the log.
fn serve(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = match args.load() {
        Ok(config) => config,
        Err(error) => {
            logging::say(&error.to_string());
            return Ok(ExitCode::from(crate::config::EXIT_CODE));
        }
    };
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
            logging::say(&format!("forebay: {:#}", exit.into_error()));
            ExitCode::from(code)
        }
    })
}
