//! `forebay clock`: whether the clock is trusted, and the last trusted time on disk.

use std::process::ExitCode;

use clap::Subcommand;

use super::access::ShowArgs;
use super::failure::Failure;
use super::output::Output;
use crate::inspect::{Change, ClockLine};
use crate::words::times;

/// Show whether the machine's clock is trusted, and the last trusted time on disk
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Asks the running gateway, or looks itself where none runs.\n\nExamples:\n  \
                  forebay clock\n  forebay clock --json\n  forebay clock reset"
)]
pub(in crate::cli) struct ClockCommand {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Forget the last trusted time on disk
    #[command(
        after_help = "For a time that is wrong: it lies in the future, and devices are refused as expired by it. A clock that is trusted \
                      writes its own time with the next record. Works on a running gateway and on a stopped one.\n\nExamples:\n  \
                      forebay clock reset\n  forebay clock reset --json\n  forebay clock reset --url http://127.0.0.1:9464"
    )]
    Reset(ShowArgs),
}

impl ClockCommand {
    pub(in crate::cli) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.action {
            None => show(&self.show),
            Some(Action::Reset(show)) => reset(show),
        }
    }
}

fn show(args: &ShowArgs) -> Result<ExitCode, Failure> {
    let found = args.place.open()?.clock()?;
    let mut out = Output::new();
    if args.json {
        out.json(&found);
    } else {
        out.text(text(&found).join("\n"));
    }
    out.end()?;
    Ok(ExitCode::SUCCESS)
}

fn text(found: &ClockLine) -> Vec<String> {
    let trusted = if found.trusted { "trusted" } else { "not trusted" };
    let mut lines = vec![
        format!("clock         {}", found.now),
        format!("              {trusted}: {}", found.detail),
        format!(
            "last trusted  {}",
            found.last_trusted.clone().unwrap_or_else(|| "no time on disk".to_owned())
        ),
    ];
    if let Some(ahead) = found.last_trusted_ahead_seconds.filter(|ahead| *ahead > 60) {
        lines.push(format!(
            "              {ahead} s ahead of the clock; if the clock is right, `forebay clock reset` forgets it"
        ));
    }
    if found.jumps > 0 {
        lines.push(format!("set           {} since the gateway started", times(found.jumps)));
    }
    if found.suspended_seconds > 0 {
        lines.push(format!("suspended     {} s since the machine booted", found.suspended_seconds));
    }
    lines
}

fn reset(args: &ShowArgs) -> Result<ExitCode, Failure> {
    let mut access = args.place.open()?;
    let was = access.clock()?.last_trusted;
    let changed = access.change(&Change::ForgetTime)?.changed;
    let mut out = Output::new();
    match &was {
        _ if args.json => out.json(&serde_json::json!({"forgotten": was.filter(|_| changed > 0)})),
        Some(time) if changed > 0 => out.text(format!("forgot {time}")),
        _ => out.text("there is no trusted time on disk"),
    };
    out.end()?;
    Ok(ExitCode::SUCCESS)
}
