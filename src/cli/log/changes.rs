//! The commands that change the log: they say what they would do, and do it with `--yes`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::anyhow;

use super::access::{Access, PlaceArgs};
use super::failure::{Failure, partly};
use super::filter::{FilterArgs, LetterArgs, is_named};
use super::output::Output;
use super::show::person;
use crate::inspect::{Change, Changed, Line, MAX_AT_ONCE, Numbers, RecordLine, Selection, State};

/// How many are shown of those that would be changed.
const SHOWN: usize = 10;

/// What becomes of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Requeue,
    Drop,
}

#[derive(Debug, clap::Args)]
pub(super) struct ChangeArgs {
    /// Their numbers or their records' ids
    #[arg(value_name = "NUMBER|ID")]
    letters: Vec<String>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    filter: LetterArgs,
    /// Every dead letter
    #[arg(long, conflicts_with = "letters")]
    all: bool,
    /// Do it; without it, only print what would be done
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// Ids of records, as the cloud got them in `forebay-id`
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Every settled record
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Do it; without it, only print what would be done
    #[arg(long)]
    yes: bool,
}

/// Gathers what is meant and hands it on in portions, or shows it.
struct Gathering<'a> {
    access: &'a mut Access,
    out: &'a mut Output,
    yes: bool,
    make: &'a dyn Fn(Option<String>, Vec<u64>) -> Change,
    verb: (&'a str, &'a str),
    meant: u64,
    done: Changed,
}

pub(super) fn letters(what: What, args: &ChangeArgs) -> Result<ExitCode, Failure> {
    let selection = args.filter.selection();
    if args.letters.is_empty() && selection == Selection::default() && !args.all {
        return Err(Failure::Failed(anyhow!(
            "name dead letters by number or id, give a filter, or --all"
        )));
    }
    let mut access = args.place.open()?;
    let mut out = Output::new();
    let mut wanted: BTreeSet<&str> = args.letters.iter().map(String::as_str).collect();
    let mut numbers = Vec::new();
    let mut shown = 0;
    // There are at most as many as the dead letters' bound has room for, so their numbers may be kept.
    access.letters(&selection, &mut |line| {
        let Line::Record(letter) = &line else {
            return person(&mut out, &line);
        };
        if !args.letters.is_empty() {
            let Some(name) = wanted.iter().find(|name| is_named(letter, name)).copied() else {
                return true;
            };
            wanted.remove(name);
        }
        numbers.extend(letter.letter);
        shown += 1;
        args.yes || shown > SHOWN || out.text(letter_text(letter))
    })?;
    for name in &wanted {
        out.text(format!("there is no dead letter {name}"));
    }
    let (verb, make): (_, fn(Numbers) -> Change) = match what {
        What::Requeue => (("put back", "dead letters"), Change::Requeue),
        What::Drop => (("dropped", "dead letters"), Change::Drop),
    };
    let make = move |stream, numbers| make(Numbers { stream, numbers });
    let mut gathering = Gathering::new(&mut access, &mut out, args.yes, &make, verb);
    for portion in numbers.chunks(MAX_AT_ONCE) {
        gathering.portion(None, portion)?;
    }
    let is_whole = gathering.end()? && wanted.is_empty();
    out.end()?;
    Ok(partly(is_whole))
}

pub(super) fn replay(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let selection = Selection {
        states: vec![State::Settled],
        originals: true,
        ..args.filter.selection()
    };
    let is_unbounded = args.filter.selection() == Selection::default();
    if args.ids.is_empty() && is_unbounded && !args.all {
        return Err(Failure::Failed(anyhow!("name records by id, give a filter, or --all")));
    }
    if !args.filter.state.is_empty() {
        return Err(Failure::Failed(anyhow!(
            "--state cannot be used here: only settled records are sent again"
        )));
    }
    let mut access = args.place.open()?;
    let mut out = Output::new();
    let selections = if args.ids.is_empty() {
        by_stream(&access, &selection)?
    } else {
        args.ids.iter().map(|id| by_id(id, &selection)).collect::<Result<_, _>>()?
    };
    let make = |stream, numbers| Change::Replay(Numbers { stream, numbers });
    let mut missing = false;
    let mut gathering = Gathering::new(&mut access, &mut out, args.yes, &make, ("sent again", "settled records"));
    for (id, mut selection) in selections {
        let stream = selection.streams.first().cloned();
        // One portion after the other, so that memory does not grow with what is meant.
        loop {
            let offsets = gathering.settled(&selection, id)?;
            if let Some(id) = id.filter(|_| offsets.is_empty()) {
                missing = true;
                gathering.out.text(format!(
                    "no settled record {id} is in the log: it still waits, or its segment is deleted"
                ));
            }
            gathering.portion(stream.clone(), &offsets)?;
            match offsets.last() {
                Some(last) if id.is_none() => selection.from = Some(last + 1),
                _ => break,
            }
        }
    }
    let is_whole = gathering.end()?;
    out.end()?;
    Ok(partly(is_whole && !missing))
}

type Portion<'a> = (Option<&'a str>, Selection);

fn by_stream<'a>(access: &Access, selection: &Selection) -> Result<Vec<Portion<'a>>, Failure> {
    let streams = if selection.streams.is_empty() {
        let streams = access.stat()?.streams.into_iter();
        streams.filter(|stream| !stream.internal).map(|stream| stream.name).collect()
    } else {
        selection.streams.clone()
    };
    let one = |stream| {
        let streams = vec![stream];
        let limit = Some(MAX_AT_ONCE as u64);
        let selection = selection.clone();
        (
            None,
            Selection {
                streams,
                limit,
                ..selection
            },
        )
    };
    Ok(streams.into_iter().map(one).collect())
}

fn by_id<'a>(id: &'a str, selection: &Selection) -> Result<Portion<'a>, Failure> {
    let wrong = || {
        Failure::Failed(anyhow!(
            "{id} is not a record id; a record id is like plant-7/0123456789abcdef/telemetry/17"
        ))
    };
    let parts: Vec<&str> = id.split('/').collect();
    let [_, _, stream, offset] = parts.as_slice() else {
        return Err(wrong());
    };
    let one = Selection {
        streams: vec![(*stream).to_owned()],
        from: Some(offset.parse().map_err(|_| wrong())?),
        limit: Some(1),
        ..selection.clone()
    };
    Ok((Some(id), one))
}

fn letter_text(record: &RecordLine) -> String {
    let id = record.id.as_deref().unwrap_or_default();
    let reason = record.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("  {id}{reason}")
}

impl<'a> Gathering<'a> {
    fn new(
        access: &'a mut Access,
        out: &'a mut Output,
        yes: bool,
        make: &'a dyn Fn(Option<String>, Vec<u64>) -> Change,
        verb: (&'a str, &'a str),
    ) -> Self {
        Self {
            access,
            out,
            yes,
            make,
            verb,
            meant: 0,
            done: Changed::default(),
        }
    }

    /// A portion of what is meant, by offsets; damage is told, and the first few are when nothing is done yet.
    fn settled(&mut self, selection: &Selection, id: Option<&str>) -> Result<Vec<u64>, Failure> {
        let (out, yes, mut shown) = (&mut *self.out, self.yes, self.meant);
        let mut offsets = Vec::new();
        self.access.records(selection, &mut |line| {
            let Line::Record(record) = &line else {
                return person(out, &line);
            };
            if id.is_some_and(|id| record.id.as_deref() != Some(id)) {
                return true;
            }
            offsets.push(record.offset);
            shown += 1;
            yes || shown > SHOWN as u64 || out.text(letter_text(record))
        })?;
        Ok(offsets)
    }

    fn portion(&mut self, stream: Option<String>, numbers: &[u64]) -> Result<(), Failure> {
        self.meant += numbers.len() as u64;
        if self.yes {
            let changed = self.access.change(&(self.make)(stream, numbers.to_vec()))?;
            self.done.changed += changed.changed;
            self.done.kept.extend(changed.kept);
        }
        Ok(())
    }

    /// Says what was done; true = all that was meant.
    fn end(self) -> Result<bool, Failure> {
        let (verb, noun) = self.verb;
        if !self.yes {
            self.out.text(match self.meant {
                0 => format!("No {noun} match"),
                meant => format!("{meant} {noun} would be {verb}; --yes does it"),
            });
            return Ok(true);
        }
        for kept in self.done.kept.iter().take(SHOWN) {
            self.out.text(format!("{} is not changed: {}", kept.number, kept.reason));
        }
        self.out.text(format!("{} of {} {noun} were {verb}", self.done.changed, self.meant));
        Ok(self.done.changed == self.meant)
    }
}
