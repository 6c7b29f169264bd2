//! The command line: one screen per command, `--help` with examples, exit codes 0 well, 1 failed, 70 us, 74 disk, 78 configuration.

mod check;
#[cfg(feature = "demo")]
mod device;
#[cfg(feature = "demo")]
mod duration;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides};
use crate::logging::LogArgs;

#[cfg(feature = "demo")]
pub(crate) use duration::duration;

/// Something else failed.
const FAILED: u8 = 1;

/// An edge gateway for IoT devices that never acks what it could lose.
#[derive(Debug, Parser)]
#[command(
    name = "forebay",
    version,
    max_term_width = 110,
    after_help = "Begin with:\n  forebay demo                                   see it work, in about a minute\n  \
                  forebay certs ca && forebay certs server --name $(hostname).local\n  forebay check -c forebay.yaml\n  forebay run -c forebay.yaml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    #[command(
        after_help = "Prints `ready listeners=... admin=...` on stdout once it serves, logs to stderr, and stops on SIGTERM or Ctrl-C after \
                      answering what is committed.\n\nExamples:\n  forebay run -c /etc/forebay/forebay.yaml\n  \
                      forebay run -c forebay.yaml --set gateway.commit_wait=500ms\n  FOREBAY__ADMIN__BIND=127.0.0.1:9999 forebay run -c forebay.yaml"
    )]
    Run {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Check a configuration, its certificates, its routes and its disk, without starting
    #[command(
        after_help = "Exit code 0 if the gateway could start and serve, 78 if not.\n\nExamples:\n  forebay check -c forebay.yaml\n  \
                      forebay check -c forebay.yaml --sample devices/board-1/telemetry/env --as board-1"
    )]
    Check(check::CheckArgs),
    /// Make and show certificates
    Certs(crate::certs::CertsCommand),
    /// Show the gateway at work: devices, an outage, a kill, and the balance
    #[cfg(feature = "demo")]
    Demo(crate::demo::DemoArgs),
    /// Run virtual devices: the firmware's own logic, with certificates from `forebay certs device`
    #[cfg(feature = "demo")]
    Device(device::DeviceArgs),
}

/// Which configuration, with what laid over it.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "forebay.yaml")]
    config: PathBuf,
    /// Override a key: `--set gateway.max_disk=2GiB`; repeat for more. Wins over the environment (FOREBAY__GATEWAY__MAX_DISK)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        crate::config::load(&self.config, &Overrides::from_process(self.set.clone()))
    }
}

/// Parses the arguments and does what they say.
pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config, log } => run::run(&config, &log),
        Command::Check(args) => check::run(&args),
        Command::Certs(command) => command.run(),
        #[cfg(feature = "demo")]
        Command::Demo(args) => args.run(),
        #[cfg(feature = "demo")]
        Command::Device(args) => device::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("forebay: {error:#}");
        ExitCode::from(FAILED)
    })
}

/// Prints everything that is wrong with a configuration; the exit code for it.
fn report(error: &ConfigError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(crate::config::EXIT_CODE)
}
