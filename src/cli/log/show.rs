//! The commands that only look.

use std::process::ExitCode;
use std::time::Duration;

use super::access::{PlaceArgs, ShowArgs};
use super::failure::Failure;
use super::filter::FilterArgs;
use super::output::{Output, table};
use crate::cli::FAILED;
use crate::config::{show_bytes, show_duration};
use crate::inspect::{AuditLine, Line, Printable, RecordLine, SegmentLine, Selection, Stat};
use crate::words::count;

/// Characters of a payload on a person's line.
const PAYLOAD: usize = 60;

#[derive(Debug, clap::Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Show new records as they come, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many records to begin with, at most 10000
    #[arg(short = 'n', long = "lines", value_name = "COUNT", default_value_t = 10)]
    count: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Begin at this offset of each stream
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// At most this many records
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

/// What to recount.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AuditArgs {
    #[command(flatten)]
    show: ShowArgs,
    /// Show every device's line
    #[arg(long)]
    devices: bool,
}

impl AuditArgs {
    pub(in crate::cli) fn run(&self) -> Result<ExitCode, Failure> {
        audit(self)
    }
}

pub(super) fn stat(args: &ShowArgs) -> Result<ExitCode, Failure> {
    let stat = args.place.open()?.stat()?;
    let mut out = Output::new();
    if args.json {
        out.json(&stat);
    } else {
        out.text(stat_text(&stat));
    }
    out.end()?;
    Ok(ExitCode::SUCCESS)
}

fn stat_text(stat: &Stat) -> String {
    let mut rows = vec![row(["stream", "waiting", "bytes", "bound", "when full", "oldest", "offsets"])];
    for stream in &stat.streams {
        let ago = stream
            .oldest_seconds
            .map(|seconds| show_duration(Duration::from_secs(seconds)) + " ago");
        let unproved = || stream.oldest_at.as_ref().map_or_else(|| "-".to_owned(), |at| format!("{at}?"));
        rows.push(vec![
            if stream.internal {
                format!("({})", stream.name)
            } else {
                stream.name.clone()
            },
            stream.waiting.to_string(),
            show_bytes(stream.waiting_bytes),
            stream.max_bytes.map_or_else(|| "-".to_owned(), show_bytes),
            stream.when_full.clone().unwrap_or_else(|| "-".to_owned()),
            ago.unwrap_or_else(unproved),
            format!("{}..{}", stream.first_offset.unwrap_or(stream.next_offset), stream.next_offset),
        ]);
    }
    let state = match (stat.running, stat.clean) {
        (true, _) => "running",
        (false, Some(false)) => "stopped, not closed properly: it is repaired when the gateway starts",
        (false, _) => "stopped, closed properly",
    };
    let free = stat.disk.free_bytes.map_or_else(|| "?".to_owned(), show_bytes);
    let mut text = format!(
        "{} in {}, {state}\n\n{}\n\n{} segments, {} of {}; {free} free in the file system, of which {} stay free",
        stat.gateway,
        stat.directory,
        table(&rows),
        stat.segments.count,
        show_bytes(stat.segments.bytes),
        show_bytes(stat.disk.max_bytes),
        show_bytes(stat.disk.keep_free_bytes),
    );
    for (count, what) in [
        (stat.segments.unclean, "not closed properly, repaired when read"),
        (stat.segments.damaged, "missing or damaged: see `forebay log verify`"),
        (
            stat.segments.quarantined,
            "quarantined because they did not open: `forebay log salvage` reads them",
        ),
    ] {
        if count > 0 {
            text += &format!("\n{count} of the segments {what}");
        }
    }
    for note in &stat.notes {
        text += &format!("\n{note}");
    }
    let (Some(accepted), Some(delivered), Some(since)) = (stat.accepted_per_second, stat.delivered_per_second, &stat.since_start) else {
        return text + "\nrates and bytes written are known only while the gateway runs";
    };
    let per_byte = since
        .written_per_payload_byte
        .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    text + &format!(
        "\n{accepted}/s accepted, {delivered}/s delivered\nsince start, {} ago: {} with {} of payload in {}; {} written, {per_byte} bytes \
         per payload byte; at this rate {:.2} GB per day",
        show_duration(Duration::from_secs(since.seconds as u64)),
        count(since.records, "record"),
        show_bytes(since.payload_bytes),
        count(since.commits, "commit"),
        show_bytes(since.written_bytes),
        since.projected_gb_per_day,
    )
}

pub(super) fn segments(args: &ShowArgs) -> Result<ExitCode, Failure> {
    let access = args.place.open()?;
    let mut out = Output::new();
    let mut rows = vec![row([
        "segment",
        "condition",
        "bytes",
        "stream",
        "offsets",
        "waiting",
        "bytes waiting",
    ])];
    access.segments(&mut |line| match line {
        Line::Segment(segment) if args.json => out.json(&segment),
        Line::Segment(segment) => {
            rows.extend(segment_rows(&segment));
            true
        }
        _ => true,
    })?;
    if !args.json {
        out.text(table(&rows));
    }
    out.end()?;
    Ok(ExitCode::SUCCESS)
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn segment_rows(segment: &SegmentLine) -> Vec<Vec<String>> {
    let head = vec![segment.segment.clone(), segment.condition.clone(), show_bytes(segment.bytes)];
    if segment.streams.is_empty() {
        return vec![head];
    }
    let part = |(nth, part): (usize, &crate::inspect::PartLine)| {
        let mut cells = if nth == 0 { head.clone() } else { vec![String::new(); 3] };
        cells.extend([
            part.stream.clone(),
            format!("{}..{}", part.first_offset, part.end_offset),
            part.waiting.to_string(),
            show_bytes(part.waiting_bytes),
        ]);
        cells
    };
    segment.streams.iter().enumerate().map(part).collect()
}

pub(super) fn tail(args: &TailArgs) -> Result<ExitCode, Failure> {
    let access = args.show.place.open()?;
    let mut out = Output::new();
    access.tail(&args.filter.selection(), args.count, args.follow, &mut |line| {
        let shown = if args.show.json {
            content(&mut out, &line)
        } else {
            person(&mut out, &line)
        };
        shown && (!args.follow || out.flush())
    })?;
    out.end()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn export(args: &ExportArgs) -> Result<ExitCode, Failure> {
    let access = args.place.open()?;
    let selection = Selection {
        from: args.from,
        limit: args.limit,
        ..args.filter.selection()
    };
    let mut out = Output::new();
    access.records(&selection, &mut |line| content(&mut out, &line))?;
    out.end()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes what a stream holds as JSON.
pub(super) fn content(out: &mut Output, line: &Line) -> bool {
    !out.is_content(line) || out.json(line)
}

/// Writes what a stream holds for a person.
pub(super) fn person(out: &mut Output, line: &Line) -> bool {
    if !out.is_content(line) {
        return true;
    }
    match line {
        Line::Record(record) => out.text(record_text(record)),
        Line::Damaged(damage) => out.text(format!(
            "damaged: {} {}..{} in {}: {}",
            damage.stream, damage.first_offset, damage.end_offset, damage.segment, damage.what
        )),
        _ => true,
    }
}

fn record_text(record: &RecordLine) -> String {
    let state = serde_json::to_value(record.state).ok();
    format!(
        "{}{} {:<7} {}/{} {} {} {}",
        record.received_at,
        if record.clock_trusted { "" } else { "?" },
        state.as_ref().and_then(|state| state.as_str()).unwrap_or_default(),
        record.stream,
        record.offset,
        Printable(&record.identity, 128),
        Printable(&record.topic, 256),
        payload_text(record, PAYLOAD),
    )
}

/// The payload for a terminal, cut.
pub(super) fn payload_text(record: &RecordLine, length: usize) -> String {
    if record.payload_encoding == "utf-8" {
        Printable(&record.payload, length).to_string()
    } else {
        format!("{}:{}", record.payload_encoding, Printable(&record.payload, length))
    }
}

pub(super) fn verify(args: &ShowArgs) -> Result<ExitCode, Failure> {
    let access = args.place.open()?;
    let mut out = Output::new();
    let mut verified = None;
    access.verify(&mut |line| {
        if !out.is_content(&line) {
            return true;
        }
        if let Line::Verified(all) = &line {
            verified = Some(all.clone());
        }
        match &line {
            _ if args.json => out.json(&line),
            Line::Finding(finding) => {
                let segment = finding.segment.as_ref().map(|segment| format!("{segment}: ")).unwrap_or_default();
                let stream = finding.stream.as_ref().map(|stream| format!("{stream}/")).unwrap_or_default();
                let offset = finding.offset.map(|offset| format!("{offset}: ")).unwrap_or_default();
                out.text(format!("wrong: {segment}{stream}{offset}{}", finding.finding))
            }
            Line::Verified(all) => {
                let ledger = match all.balances {
                    Some(true) => "the ledger balances",
                    Some(false) => "the ledger does not balance",
                    None => "the ledger could not be recounted",
                };
                out.text(format!(
                    "{} in {}: {}, {} with {}, {} of state read; {ledger}",
                    count(all.findings, "finding"),
                    count(all.segments, "segment"),
                    count(all.blocks, "block"),
                    count(all.records, "record"),
                    show_bytes(all.bytes),
                    count(all.rows, "row")
                ))
            }
            _ => true,
        }
    })?;
    out.end()?;
    let is_well = verified.is_some_and(|verified| verified.verified);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

pub(super) fn audit(args: &AuditArgs) -> Result<ExitCode, Failure> {
    let mut audit = args.show.place.open()?.audit()?;
    let balances = audit.balances;
    let mut out = Output::new();
    if !args.devices {
        audit.devices.clear();
    }
    if args.show.json {
        out.json(&audit);
    } else {
        out.text(audit_text(&audit));
    }
    out.end()?;
    Ok(if balances { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn audit_text(audit: &AuditLine) -> String {
    let head = row([
        "",
        "accepted",
        "requeued",
        "delivered",
        "waiting",
        "expired",
        "evicted",
        "dead",
        "damaged",
    ]);
    let line = |name: &str, counts: [u64; 8]| {
        let mut cells = vec![Printable(name, 128).to_string()];
        cells.extend(counts.map(|count| count.to_string()));
        cells
    };
    let mut rows = vec![head];
    for d in &audit.devices {
        let counts = [
            d.accepted,
            d.requeued,
            d.delivered,
            d.waiting,
            d.expired,
            d.evicted,
            d.dead,
            d.damaged,
        ];
        rows.push(line(&d.identity, counts));
    }
    let a = audit;
    let counts = [
        a.accepted,
        a.requeued,
        a.delivered,
        a.waiting,
        a.expired,
        a.evicted,
        a.dead,
        a.damaged,
    ];
    rows.push(line("all", counts));
    let verdict = if audit.balances {
        "balances: accepted + requeued = delivered + waiting + expired + evicted + dead + damaged"
    } else {
        "DOES NOT BALANCE; `forebay log verify` names damaged and missing segments"
    };
    format!("{}\n\n{verdict}; `waiting` in the line of all was counted by reading", table(&rows))
}
