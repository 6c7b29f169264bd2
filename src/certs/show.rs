//! `forebay certs show`: a ladder per file, then what is wrong.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::inspect::{Inspection, Rung, Usage, inspect, likely_usage};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// PEM files with certificates
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Names that devices dial, to be covered by the certificate
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    names: Vec<String>,
    /// The CAs that it must be signed by
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The private key that must belong to it [default: FILE with .key, if there is one]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// What it is meant to be [default: what it looks like]
    #[arg(long, value_enum)]
    usage: Option<Usage>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    file: &'a Path,
    #[serde(flatten)]
    inspection: Inspection,
}

/// Prints every file; exit code 1 if anything is seriously wrong with any of them.
pub(super) fn run(args: &ShowArgs, out: &mut dyn Write, now: SystemTime) -> anyhow::Result<ExitCode> {
    let shown: Vec<Shown<'_>> = args
        .files
        .iter()
        .map(|file| Shown {
            file,
            inspection: examine(args, file, now),
        })
        .collect();
    if args.json {
        writeln!(out, "{}", crate::json::to_string_pretty(&shown)?)?;
    } else {
        for (at, Shown { file, inspection }) in shown.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n" };
            writeln!(out, "{gap}{}", file.display())?;
            print(out, inspection, now)?;
        }
    }
    let works = shown.iter().all(|shown| shown.inspection.works());
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(args: &ShowArgs, file: &Path, now: SystemTime) -> Inspection {
    let beside = file.with_extension("key");
    let key = args
        .key
        .as_deref()
        .or_else(|| (beside != file && beside.exists()).then_some(beside.as_path()));
    let usage = args
        .usage
        .unwrap_or_else(|| if args.names.is_empty() { likely_usage(file) } else { Usage::Server });
    inspect(file, key, args.ca.as_deref(), usage, &args.names, now)
}

fn print(out: &mut dyn Write, inspection: &Inspection, now: SystemTime) -> std::io::Result<()> {
    let ladder = &inspection.ladder;
    for (at, rung) in ladder.iter().enumerate() {
        let signs = at
            .checked_sub(1)
            .is_some_and(|below| ladder[below].issuer == rung.subject && !ladder[below].self_signed);
        if signs {
            writeln!(out, "  ▲ signed by")?;
        }
        print_rung(out, rung, now)?;
    }
    if let Some(top) = ladder.last().filter(|top| !top.self_signed) {
        writeln!(out, "  ▲ signed by {} (not in the file)", top.issuer)?;
    }
    let mut problems = inspection.problems.iter();
    match problems.next() {
        None => writeln!(out, "  nothing wrong")?,
        Some(first) => writeln!(out, "  {}: {}", word(first.serious), first.text)?,
    }
    for problem in problems {
        writeln!(out, "  also {}: {}", word(problem.serious), problem.text)?;
    }
    Ok(())
}

fn print_rung(out: &mut dyn Write, rung: &Rung, now: SystemTime) -> std::io::Result<()> {
    let kind = match (rung.ca, rung.self_signed) {
        (true, true) => "root ",
        (true, false) => "CA   ",
        (false, _) => "leaf ",
    };
    writeln!(out, "  {kind} {}", rung.subject)?;
    if !rung.names.is_empty() {
        writeln!(out, "        names   {}", rung.names.join(", "))?;
    }
    writeln!(
        out,
        "        valid   {} to {} ({})",
        rung.not_before,
        rung.not_after,
        left(rung.not_after_seconds, now)
    )?;
    if !rung.usages.is_empty() {
        writeln!(out, "        for     {}", rung.usages.join(", "))?;
    }
    writeln!(out, "        key     {}", rung.key)?;
    writeln!(out, "        sha256  {}", rung.sha256)
}

fn left(not_after: i64, now: SystemTime) -> String {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    match (not_after - now) / 86_400 {
        _ if not_after < now => "expired".to_owned(),
        days @ 0..=730 => format!("{days} days left"),
        days => format!("{} years left", days / 365),
    }
}

fn word(serious: bool) -> &'static str {
    if serious { "wrong" } else { "look at" }
}
