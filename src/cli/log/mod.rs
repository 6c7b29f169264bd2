//! `forebay log`, `forebay dead`, `forebay audit`: what is in the log, of a running gateway or a stopped one.

mod access;
mod changes;
mod client;
mod clock;
mod dead;
mod failure;
mod filter;
mod output;
mod salvage;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

use access::ShowArgs;
use changes::ReplayArgs;
use salvage::SalvageArgs;
use show::{ExportArgs, TailArgs};

pub(super) use clock::ClockCommand;
pub(super) use dead::DeadCommand;
pub(super) use failure::Failure;
pub(super) use output::table;
pub(super) use show::AuditArgs;

/// Look into the log.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A running gateway is read through its admin API, a stopped one's segments under the log's lock. Only replay changes anything.\n\nExamples:\n  forebay log stat\n  forebay log tail --follow --identity board-1\n  \
                  forebay log export --stream telemetry --since 2h\n  forebay log verify"
)]
pub(super) struct LogCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Streams, segments, bytes, rates, and bytes written per day
    #[command(after_help = "Examples:\n  forebay log stat\n  forebay log stat -c /etc/forebay/forebay.yaml --json")]
    Stat(ShowArgs),
    /// List the segments with their contents
    #[command(after_help = "Examples:\n  forebay log ls\n  forebay log ls --json")]
    Ls(ShowArgs),
    /// Show the newest records, and new ones with --follow
    #[command(
        after_help = "Examples:\n  forebay log tail\n  forebay log tail --follow --topic devices/+/alarm\n  \
                      forebay log tail -n 100 --identity board-1 --json"
    )]
    Tail(TailArgs),
    /// Write records as JSON lines; docs/log.md describes the fields
    #[command(
        after_help = "Removes nothing from the log.\n\nExamples:\n  forebay log export --state waiting\n  \
                      forebay log export --stream telemetry --topic devices/+/env --since 2026-11-26 --until 1h"
    )]
    Export(ExportArgs),
    /// Check every block, checksum and count; exit code 1 if anything is wrong
    #[command(after_help = "Examples:\n  forebay log verify\n  forebay log verify --json")]
    Verify(ShowArgs),
    /// Take the whole records out of a segment that does not open, as JSON lines; the file is not changed
    #[command(
        after_help = "Examples:\n  forebay log salvage data/log\n  forebay log salvage data/log/0000000007.redb.damaged\n  \
                      forebay log salvage backup/log --all"
    )]
    Salvage(SalvageArgs),
    /// Send settled records again that are still in a segment, under their first ids
    #[command(
        after_help = "Without --yes it only prints what it would do. The cloud gets these ids a second time.\n\nExamples:\n  \
                      forebay log replay plant-7/0123456789abcdef/telemetry/17 --yes\n  \
                      forebay log replay --identity board-1 --since 2h"
    )]
    Replay(ReplayArgs),
}

impl LogCommand {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.action {
            Action::Stat(args) => show::stat(args),
            Action::Ls(args) => show::segments(args),
            Action::Tail(args) => show::tail(args),
            Action::Export(args) => show::export(args),
            Action::Verify(args) => show::verify(args),
            Action::Salvage(args) => salvage::run(args),
            Action::Replay(args) => changes::replay(args),
        }
    }
}
