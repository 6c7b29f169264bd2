//! `forebay run`.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{ConfigArgs, DISK, INTERNAL};
use crate::gateway::{self, Exit, OsSignals, make_private};
use crate::logging::{self, LogArgs};
use crate::monitor::tasks::Tasks;

pub(super) fn run(args: &ConfigArgs, log: &LogArgs) -> anyhow::Result<ExitCode> {
    make_private();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        // Before anything else: a signal may come at any moment.
        let signals = OsSignals::listen()?;
        log.start()?;
        anyhow::Ok(serve(args, signals).await)
    });
    // What still blocks (a resolver, a disk) must not keep the process.
    runtime.shutdown_background();
    logging::flush();
    code
}

/// Runs the gateway; from here on stderr belongs to the log.
async fn serve(args: &ConfigArgs, signals: OsSignals) -> ExitCode {
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    tasks.vital("os-signals", &stop, signals.obey(stop.clone()));
    let origin = args.origin();
    let loading = tokio::task::spawn_blocking(move || crate::config::load_to_run(&origin.path, &origin.overrides));
    let loaded = tokio::select! {
        loaded = loading => loaded,
        () = stop.cancelled() => return ExitCode::SUCCESS,
    };
    let exit = match loaded {
        Ok(Ok((config, later))) => {
            for fault in later {
                tracing::error!(key = fault.path, "{}; the gateway starts and waits for it", fault.reason);
            }
            gateway::run(config, args.origin(), tasks, stop).await
        }
        Ok(Err(error)) => {
            logging::say(&error.to_string());
            return ExitCode::from(crate::config::EXIT_CODE);
        }
        Err(error) => Err(Exit::Internal(error.into())),
    };
    let Err(exit) = exit else { return ExitCode::SUCCESS };
    let code = match &exit {
        Exit::Configuration(_) => crate::config::EXIT_CODE,
        Exit::Disk(_) => DISK,
        Exit::Internal(_) => INTERNAL,
    };
    logging::say(&format!("forebay: {:#}", exit.into_error()));
    ExitCode::from(code)
}
