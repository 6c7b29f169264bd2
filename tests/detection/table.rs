//! docs/detection.md: what the last written run took.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::calm::Calm;
use super::judge::Row;
use super::mosquitto::Raised;
use super::support::prometheus::root;

/// The page, from its root.
const PAGE: &str = "docs/detection.md";
/// The table stands between these.
const BEGIN: &str = "<!-- the twelve faults: FOREBAY_BLESS=1 cargo test --test detection -->\n";
const END: &str = "<!-- end of the twelve faults -->\n";

/// The comparison stands between these.
const BEGIN_OTHER: &str = "<!-- the same faults against Mosquitto -->\n";
const END_OTHER: &str = "<!-- end of the same faults against Mosquitto -->\n";

/// The undisturbed run stands between these.
const BEGIN_CALM: &str = "<!-- undisturbed: FOREBAY_BLESS=1 FOREBAY_UNDISTURBED=3600 cargo test --test detection an_undisturbed -->\n";
const END_CALM: &str = "<!-- end of undisturbed -->\n";
const HOUR: Duration = Duration::from_secs(3600);

/// Writes the table if asked to; holds the page against this run otherwise: the same faults, alerts and words, and each
/// named within the minute that is promised.
pub(crate) fn write(rows: &[Row], others: &[String], took: Duration) {
    let table = table(rows, others, took);
    println!("{table}");
    let Some(shown) = shown_or_written(BEGIN, END, &table) else {
        return;
    };
    for row in rows {
        let line = shown.lines().find(|line| line.starts_with(&format!("| {} |", row.fault)));
        let line = line.unwrap_or_else(|| panic!("{PAGE} does not list `{}`", row.fault));
        assert!(line.contains(row.alert), "{PAGE} names `{}` otherwise: {line}", row.fault);
        let seconds = line.split('|').nth(4).and_then(|cell| cell.trim().parse::<f64>().ok());
        assert!(
            seconds.is_some_and(|seconds| seconds <= 60.0),
            "{PAGE}: not within a minute: {line}"
        );
    }
    let listed = shown
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| fault"))
        .count();
    assert_eq!(listed, rows.len(), "{PAGE} lists other faults than there are");
}

/// The same for the comparison: which alerts fired for each fault, and how many of the faults they name.
pub(crate) fn write_comparison(raised: &[Raised]) {
    let mut table = "\n| fault | alerts of the common rules | names it |\n|---|---|---|\n".to_owned();
    for raised in raised {
        let alerts = if raised.alerts.is_empty() {
            "none".to_owned()
        } else {
            raised.alerts.join(", ")
        };
        let names = if raised.is_named { "yes" } else { "no" };
        writeln!(table, "| {} | {alerts} | {names} |", raised.fault).unwrap();
    }
    let named = raised.iter().filter(|raised| raised.is_named).count();
    let any = raised.iter().filter(|raised| !raised.alerts.is_empty()).count();
    writeln!(
        table,
        "\n{any} of {} raise an alert at all, {named} of them one that names the fault.\n",
        raised.len()
    )
    .unwrap();
    println!("{table}");
    let Some(shown) = shown_or_written(BEGIN_OTHER, END_OTHER, &table) else {
        return;
    };
    for raised in raised {
        assert!(
            shown.contains(&format!("| {} |", raised.fault)),
            "{PAGE} does not list `{}` against Mosquitto",
            raised.fault
        );
    }
}

/// The same for the undisturbed run: what the page shows was an hour at least, so a shorter one is not written.
pub(crate) fn write_calm(calm: &Calm) {
    let seconds = calm.lasted.as_secs_f64();
    let text = format!(
        "\n{seconds:.0} s, {} restarts of the cloud, one each {} s; {:.0} publishes accepted, {:.0} a second; CPU time of the gateway\n\
         (a debug build) {:.1} % of a core. No alert fired.\n\n",
        calm.restarts,
        calm.life.as_secs(),
        calm.accepted,
        calm.accepted / seconds,
        calm.cpu.as_secs_f64() / seconds * 100.0,
    );
    println!("{text}");
    let shown = if calm.lasted >= HOUR {
        shown_or_written(BEGIN_CALM, END_CALM, &text)
    } else {
        shown(BEGIN_CALM, END_CALM)
    };
    let Some(shown) = shown else { return };
    let seconds = shown.trim().split(' ').next().and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(
        seconds.is_some_and(|seconds| seconds >= HOUR.as_secs()),
        "{PAGE}: not an undisturbed hour: {shown}"
    );
}

/// What the page shows between two marks; none if it was written now.
fn shown_or_written(begin: &str, end: &str, table: &str) -> Option<String> {
    // Two tests may write their parts at the same time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, shown, after) = parted(&page, begin, end);
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return None;
    }
    Some(shown.to_owned())
}

/// What the page shows between two marks.
fn shown(begin: &str, end: &str) -> Option<String> {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    Some(parted(&page, begin, end).1.to_owned())
}

fn parted<'a>(page: &'a str, begin: &str, end: &str) -> (&'a str, &'a str, &'a str) {
    let (before, rest) = page.split_once(begin).unwrap_or_else(|| panic!("{PAGE} lacks its mark `{begin}`"));
    let (shown, after) = rest.split_once(end).unwrap_or_else(|| panic!("{PAGE} lacks its mark `{end}`"));
    (before, shown, after)
}

fn table(rows: &[Row], others: &[String], took: Duration) -> String {
    let mut table = "\n| fault | alert | its words | s to the alert | s from the cure to resolved |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let page = row.runbook.trim_start_matches("docs/");
        let (named, resolved) = (row.named.as_secs_f64(), row.resolved.as_secs_f64());
        let summary = row.summary.replace('|', "\\|");
        writeln!(
            table,
            "| {} | [{}]({page}) | {summary} | {named:.0} | {resolved:.0} |",
            row.fault, row.alert
        )
        .unwrap();
    }
    let mut also: Vec<_> = others.to_vec();
    also.sort();
    also.dedup();
    write!(table, "\nThe run took {} s. ", took.as_secs()).unwrap();
    if also.is_empty() {
        table.push_str("No other alert fired.\n\n");
    } else {
        table.push_str("Other alerts that fired at the faulty gateways, mostly consequences of the faults:\n\n");
        for summary in also {
            writeln!(table, "* {summary}").unwrap();
        }
        table.push('\n');
    }
    table
}
