//! `forebay demo`: a story of about a minute in which nothing is lost.
//!
//! Everything in it is real: the gateway is a child process of this binary, the devices run the firmware's own core and TLS
//! with a certificate each, the stand-in cloud demands mutual TLS and keeps a ledger of its own. At the end the gateway's log is
//! recounted by reading, and compared with what the devices saw acked and what the cloud has.

mod balance;
mod child;
mod devices;
mod figures;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use tokio::task::LocalSet;

use crate::config::duration;

/// Time at the beginning in which messages simply flow.
const CALM: Duration = Duration::from_secs(5);
/// Time that the end of the story leaves for the drain.
const TAIL: Duration = Duration::from_secs(5);

/// How the story goes.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit code 0 only if the ledger balances, nothing is lost and nothing is out of order.\n\nExamples:\n  forebay demo\n  \
                  forebay demo --devices 100 --rate 20 --for 2m --outage 45s\n  forebay demo --for 20s --outage 5s --json"
)]
pub(crate) struct DemoArgs {
    /// Virtual devices, each with a certificate of its own
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    devices: u32,
    /// Messages per second per device
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// How long devices publish
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    length: Duration,
    /// How long the cloud is away
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    outage: Duration,
    /// Leave the gateway alive
    #[arg(long)]
    no_kill: bool,
    /// Print the result as one JSON line on stdout, and the story on stderr
    #[arg(long)]
    json: bool,
}

impl DemoArgs {
    /// Tells the story.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        ensure!(
            self.length >= CALM + self.outage + TAIL,
            "--for {:?} is too short for an outage of {:?}: give it at least {:?}",
            self.length,
            self.outage,
            CALM + self.outage + TAIL
        );
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let balance = runtime.block_on(LocalSet::new().run_until(story::tell(self)))?;
        if self.json {
            println!("{}", serde_json::to_string(&balance)?);
        }
        Ok(if balance.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
