//! `forebay check`.

use std::process::ExitCode;

use super::ConfigArgs;
use crate::check::{self, CheckOptions, Report};
use crate::config::EXIT_CODE;

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Follow a topic through the gateway: who may publish it, which route takes it, where it goes
    #[arg(long, value_name = "TOPIC")]
    sample: Option<String>,
    /// The identity that publishes the sample
    #[arg(long = "as", value_name = "IDENTITY", requires = "sample")]
    identity: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let report = match args.config.load() {
        Ok(config) => check::run(
            &config,
            &CheckOptions {
                sample: args.sample.clone(),
                identity: args.identity.clone(),
                taken: 0,
            },
        ),
        Err(error) if args.json => Report::of_faults(&error),
        Err(error) => return Ok(super::report(&error)),
    };
    if args.json {
        println!("{}", report.json());
    } else {
        println!("{report}");
    }
    Ok(if report.failed() {
        ExitCode::from(EXIT_CODE)
    } else {
        ExitCode::SUCCESS
    })
}
