//! `forebay dead`: records that the cloud will never take as they are.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Subcommand;

use super::access::{PlaceArgs, ShowArgs};
use super::changes::{self, ChangeArgs, What};
use super::failure::Failure;
use super::filter::{LetterArgs, is_named};
use super::output::{Output, table};
use super::show::{content, payload_text};
use crate::inspect::{Line, Printable, Selection};

/// Look at dead letters, put them back, drop them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A dead letter is named by its number (the first column of `ls`) or by its record's id.\n\nExamples:\n  forebay dead ls\n  \
                  forebay dead show 17\n  forebay dead requeue --reason no-route --yes"
)]
pub(in crate::cli) struct DeadCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead letters, oldest first
    #[command(after_help = "Examples:\n  forebay dead ls\n  forebay dead ls --reason topic-too-long --since 1d --json")]
    Ls {
        #[command(flatten)]
        show: ShowArgs,
        #[command(flatten)]
        filter: LetterArgs,
    },
    /// Show one dead letter with its whole payload
    #[command(after_help = "Examples:\n  forebay dead show 17\n  forebay dead show plant-7/0123456789abcdef/telemetry/4711 --json")]
    Show {
        /// Its number or its record's id
        #[arg(value_name = "NUMBER|ID")]
        letter: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Put dead letters back into their streams, under their first ids
    #[command(
        after_help = "Fix the cause first: a route, a limit, the cloud's policy. Without --yes it only prints what it would do.\n\n\
                      Examples:\n  forebay dead requeue 17 18 --yes\n  forebay dead requeue --identity board-1 --reason no-route"
    )]
    Requeue(ChangeArgs),
    /// Drop dead letters for good
    #[command(
        after_help = "Without --yes it only prints what it would do. `forebay dead export` makes a copy first.\n\nExamples:\n  \
                      forebay dead drop 17 --yes\n  forebay dead drop --until 30d"
    )]
    Drop(ChangeArgs),
    /// Write dead letters as JSON lines; docs/log.md describes the fields
    #[command(after_help = "Examples:\n  forebay dead export\n  forebay dead export --stream telemetry --topic devices/+/env")]
    Export {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        filter: LetterArgs,
    },
}

impl DeadCommand {
    pub(in crate::cli) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.action {
            Action::Ls { show, filter } => ls(show, filter),
            Action::Show { letter, show } => show_one(letter, show),
            Action::Requeue(args) => changes::letters(What::Requeue, args),
            Action::Drop(args) => changes::letters(What::Drop, args),
            Action::Export { place, filter } => {
                let access = place.open()?;
                let mut out = Output::new();
                access.letters(&filter.selection(), &mut |line| content(&mut out, &line))?;
                out.end()?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Rows shown at once, so that columns fit without keeping all.
const PAGE: usize = 500;

fn ls(show: &ShowArgs, filter: &LetterArgs) -> Result<ExitCode, Failure> {
    let access = show.place.open()?;
    let mut out = Output::new();
    let head = || {
        ["number", "reason", "received", "identity", "topic", "id"]
            .map(str::to_owned)
            .to_vec()
    };
    let mut rows = vec![head()];
    let mut count = 0;
    access.letters(&filter.selection(), &mut |line| {
        if show.json {
            return content(&mut out, &line);
        }
        if !out.is_content(&line) {
            return true;
        }
        let Line::Record(letter) = line else {
            return super::show::person(&mut out, &line);
        };
        count += 1;
        rows.push(vec![
            letter.letter.unwrap_or_default().to_string(),
            letter.reason.clone().unwrap_or_default(),
            letter.received_at.clone(),
            Printable(&letter.identity, 128).to_string(),
            Printable(&letter.topic, 80).to_string(),
            letter.id.clone().unwrap_or_default(),
        ]);
        if rows.len() < PAGE {
            return true;
        }
        out.text(table(&std::mem::take(&mut rows)))
    })?;
    if !show.json {
        if count == 0 {
            out.text("no dead letters");
        } else if !rows.is_empty() {
            out.text(table(&rows));
        }
    }
    out.end()?;
    Ok(ExitCode::SUCCESS)
}

fn show_one(name: &str, show: &ShowArgs) -> Result<ExitCode, Failure> {
    let access = show.place.open()?;
    let selection = Selection {
        from: name.parse().ok(),
        ..Selection::default()
    };
    let mut found = None;
    access.letters(&selection, &mut |line| {
        if let Line::Record(letter) = line
            && is_named(&letter, name)
        {
            found = Some(letter);
        }
        found.is_none()
    })?;
    let Some(letter) = found else {
        return Err(Failure::Failed(anyhow!(
            "there is no dead letter {name}; `forebay dead ls` lists them"
        )));
    };
    let mut out = Output::new();
    if show.json {
        out.json(&letter);
    } else {
        let rows: Vec<Vec<String>> = [
            ("number", letter.letter.unwrap_or_default().to_string()),
            ("id", letter.id.clone().unwrap_or_default()),
            ("reason", letter.reason.clone().unwrap_or_default()),
            ("", letter.detail.clone().unwrap_or_default()),
            ("received", letter.received_at.clone()),
            ("identity", Printable(&letter.identity, usize::MAX).to_string()),
            ("route", Printable(&letter.route, usize::MAX).to_string()),
            ("topic", Printable(&letter.topic, usize::MAX).to_string()),
            ("qos", letter.qos.to_string()),
            ("payload", payload_text(&letter, usize::MAX)),
        ]
        .map(|(name, value)| vec![name.to_owned(), value])
        .to_vec();
        out.text(table(&rows));
    }
    out.end()?;
    Ok(ExitCode::SUCCESS)
}
