//! The command line: one screen per command, `--help` with examples, exit codes 0 well, 1 failed, 70 us, 74 disk, 78 configuration.

mod admin_api;
mod check;
#[cfg(feature = "demo")]
mod device;
mod log;
mod run;
mod sessions;
mod status;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, Overrides};
use crate::logging::LogArgs;
use crate::monitor::self_check::Origin;

/// Something else failed.
pub(crate) const FAILED: u8 = 1;
/// The disk or the log failed (EX_IOERR).
const DISK: u8 = 74;
/// Something in us failed (EX_SOFTWARE).
const INTERNAL: u8 = 70;

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
        after_help = "Prints `ready listeners=... admin=...` on stdout when it serves, logs to stderr, and stops on SIGTERM or Ctrl-C after \
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
    /// Look into the log: streams, segments, records, damage; send settled records again
    Log(log::LogCommand),
    /// Look at dead letters, put them back, drop them
    Dead(log::DeadCommand),
    /// Recount the ledger by reading: the fate of every record
    #[command(after_help = "Exit code 1 if it does not balance.\n\nExamples:\n  forebay audit\n  forebay audit --devices --json")]
    Audit(log::AuditArgs),
    /// Show whether the machine's clock is trusted, and the last trusted time on disk
    Clock(log::ClockCommand),
    /// Show the state of a running gateway on one screen
    #[command(
        after_help = "Exit code 0 if nothing is wrong, 1 if something is wrong or no gateway answers.\n\nExamples:\n  forebay status -c /etc/forebay/forebay.yaml\n  \
                      forebay status --watch\n  forebay status --json\n  forebay status --url http://gateway:9464 --token-file admin.token"
    )]
    Status(status::StatusArgs),
    /// List, show and drop the sessions of devices
    Sessions(sessions::SessionsCommand),
    /// Make and show certificates
    Certs(crate::certs::CertsCommand),
    /// Show the gateway at work: devices, an outage, a kill, and the ledger
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
        let origin = self.origin();
        crate::config::load(&origin.path, &origin.overrides)
    }

    /// Where the configuration comes from.
    fn origin(&self) -> Origin {
        Origin {
            path: self.config.clone(),
            overrides: Overrides::from_process(self.set.clone()),
        }
    }

    /// As [`ConfigArgs::load`], whether or not the files are there that only a running gateway needs.
    fn load_settings(&self) -> Result<Config, ConfigError> {
        let overrides = Overrides {
            skip_files: true,
            ..Overrides::from_process(self.set.clone())
        };
        crate::config::load(&self.config, &overrides)
    }
}

/// Parses the arguments and does what they say.
pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config, log } => run::run(&config, &log),
        Command::Check(args) => check::run(&args),
        Command::Log(command) => ended(command.run()),
        Command::Dead(command) => ended(command.run()),
        Command::Audit(args) => ended(args.run()),
        Command::Clock(command) => ended(command.run()),
        Command::Status(args) => status::run(&args),
        Command::Sessions(command) => command.run(),
        Command::Certs(command) => command.run(),
        #[cfg(feature = "demo")]
        Command::Demo(args) => args.run(),
        #[cfg(feature = "demo")]
        Command::Device(args) => device::run(&args),
    };
    result.unwrap_or_else(|error| {
        complain(&format!("forebay: {error:#}"));
        ExitCode::from(FAILED)
    })
}

/// The exit code of a command about the log.
fn ended(result: Result<ExitCode, log::Failure>) -> anyhow::Result<ExitCode> {
    use log::Failure;
    let (code, error) = match result {
        Ok(code) | Err(Failure::Configuration(code)) => return Ok(code),
        Err(Failure::Unwanted) => return Ok(ExitCode::SUCCESS),
        Err(Failure::Failed(error)) => return Err(error),
        Err(Failure::Disk(error)) => (DISK, error),
        Err(Failure::Internal(error)) => (INTERNAL, error),
    };
    complain(&format!("forebay: {error:#}"));
    Ok(ExitCode::from(code))
}

/// Prints everything that is wrong with a configuration; the exit code for it.
fn report(error: &ConfigError) -> ExitCode {
    complain(&error.to_string());
    ExitCode::from(crate::config::EXIT_CODE)
}

/// Writes a line to stderr. A stderr that takes none must not change the exit code, as the panic of `eprintln!` would.
fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
