//! `forebay log salvage`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use forebay_wal::SalvageStep;

use super::failure::Failure;
use super::output::Output;
use crate::cli::{ConfigArgs, FAILED};
use crate::config::show_bytes;
use crate::inspect::{Line, salvaged};
use crate::words::count;

#[derive(Debug, clap::Args)]
pub(super) struct SalvageArgs {
    /// A segment, or a directory with segments
    #[arg(value_name = "DIR_OR_FILE")]
    from: PathBuf,
    /// Every segment of the directory, not only quarantined ones
    #[arg(long)]
    all: bool,
    /// The gateway's id, for the record ids; the configuration's by default
    #[arg(long, value_name = "ID")]
    gateway: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &SalvageArgs) -> Result<ExitCode, Failure> {
    let configured = || args.config.load_settings().ok().map(|config| config.gateway.id.to_string());
    // Without a name the records are there all the same.
    let gateway = args.gateway.clone().or_else(configured).unwrap_or_else(|| "?".to_owned());
    let mut out = Output::new();
    let mut is_well = true;
    for file in files(&args.from, args.all)? {
        let mut goes_on = true;
        let mut searched = 0;
        let report = forebay_wal::salvage(&file, &mut |step| {
            goes_on = match step {
                SalvageStep::Record(record) => {
                    let line = Line::Record(Box::new(salvaged(&gateway, &record)));
                    out.is_content(&line);
                    out.json(&line)
                }
                SalvageStep::Searched(bytes) => {
                    searched = bytes;
                    out.is_content(&Line::Searched { searched_bytes: bytes });
                    true
                }
            };
            goes_on
        });
        let report = report
            .with_context(|| format!("{} cannot be read", file.display()))
            .map_err(Failure::Disk)?;
        if !goes_on {
            break;
        }
        let trouble = report
            .trouble
            .map_or_else(|| "it is whole".to_owned(), |trouble| format!("it is damaged: {trouble}"));
        eprintln!(
            "{}: {} from {}, {} of them found in its raw bytes; {} damaged; {trouble}",
            file.display(),
            count(report.records, "record"),
            show_bytes(report.bytes),
            report.carved,
            report.damaged,
        );
        is_well &= report.records > 0 || report.bytes == 0;
    }
    out.end()?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The files that are meant, oldest first.
fn files(from: &Path, all: bool) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: std::io::Error| Failure::Disk(anyhow!(error).context(format!("{} cannot be read", from.display())));
    if !std::fs::metadata(from).map_err(unreadable)?.is_dir() {
        return Ok(vec![from.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(from).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.contains(".redb.damaged") || (all && name.ends_with(".redb")) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let advice = if all {
            "it has no segment"
        } else {
            "it has no quarantined segment; --all reads every segment"
        };
        return Err(Failure::Failed(anyhow!("{}: {advice}", from.display())));
    }
    Ok(files)
}
