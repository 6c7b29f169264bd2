//! The parts of the screen from top to bottom: does it flow, what waits, autonomy and deadlines, what is wrong, which device
//! has trouble.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Line, Style};
use crate::config::show_bytes;

/// Characters of a line before a sentence goes on in the next one.
const WIDTH: usize = 100;
/// Devices shown; `--json` has more.
const DEVICES: usize = 20;
/// Problems shown.
const PROBLEMS: usize = 20;
/// A deadline further away than two days is shown as a date, in seconds.
const DATED: f64 = 2.0 * 86_400.0;
/// A deadline nearer than this is coloured, in seconds: a day, and thirty.
const SOON: f64 = 86_400.0;
const BEFORE_LONG: f64 = 30.0 * 86_400.0;

/// The screen of a `/status`.
#[must_use]
pub(crate) fn page(status: &Value) -> Vec<Line> {
    let mut lines = Vec::new();
    head(status, &mut lines);
    waiting(status, &mut lines);
    autonomy(status, &mut lines);
    deadlines(status, &mut lines);
    problems(status, &mut lines);
    devices(status, &mut lines);
    lines
}

/// Whether nothing is wrong.
#[must_use]
pub(crate) fn is_well(status: &Value) -> bool {
    status["problems"].as_array().is_some_and(Vec::is_empty)
}

fn head(status: &Value, lines: &mut Vec<Line>) {
    let (word, style) = match text(&status["flowing"]["state"]) {
        "flowing" => ("FLOWING", Style::Good),
        "idle" => ("IDLE", Style::Good),
        "waiting" => ("WAITING FOR THE CLOUD", Style::Warn),
        "stalled" => ("STALLED", Style::Bad),
        "refusing" => ("REFUSING", Style::Bad),
        _ => ("UNKNOWN", Style::Bad),
    };
    lines.push(vec![
        (Style::Bold, text(&status["gateway"]).to_owned()),
        plain("  "),
        (style, word.to_owned()),
        (
            Style::Dim,
            format!("   up {}, forebay {}", ago(&status["uptime_seconds"]), text(&status["version"])),
        ),
    ]);
    let devices = &status["devices"];
    lines.push(vec![plain(format!(
        "  in   {}/s from {} of {} devices",
        rate(&status["flowing"]["accepted_per_second"]),
        whole(&devices["connected"]),
        whole(&devices["known"])
    ))]);
    let cloud = &status["cloud"];
    let link = match text(&cloud["state"]) {
        _ if cloud.is_null() => "no cloud is configured".to_owned(),
        "backing_off" => format!("not connected, next try at {}", text(&cloud["next_try"])),
        "connected" | "stalled" => format!("connected since {}", text(&cloud["since"])),
        other => other.to_owned(),
    };
    let canary = match (&status["canary"]["waiting_seconds"], &status["canary"]["round_trip_ms"]) {
        (Value::Number(_), _) => format!(", the canary has waited {}", ago(&status["canary"]["waiting_seconds"])),
        (_, Value::Number(took)) => format!(", the canary took {took} ms"),
        _ => String::new(),
    };
    lines.push(vec![plain(format!(
        "  out  {}/s to the cloud: {link}{canary}",
        rate(&status["flowing"]["delivered_per_second"])
    ))]);
    lines.push(vec![]);
}

fn waiting(status: &Value, lines: &mut Vec<Line>) {
    lines.push(vec![(Style::Bold, "Waiting".to_owned())]);
    for stream in items(&status["streams"]) {
        let (bytes, max) = (
            stream["waiting_bytes"].as_u64().unwrap_or(0),
            stream["max_bytes"].as_u64().unwrap_or(0),
        );
        let style = match bytes.saturating_mul(10) / max.max(1) {
            0..5 => Style::Plain,
            5..9 => Style::Warn,
            _ => Style::Bad,
        };
        let oldest = match &stream["oldest_seconds"] {
            Value::Null => String::new(),
            seconds => format!(", the oldest for {}", ago(seconds)),
        };
        let noun = if stream["waiting"] == 1 { "record" } else { "records" };
        let text = format!(
            "  {:<12} {} {noun}, {} of {}{oldest}",
            text(&stream["name"]),
            whole(&stream["waiting"]),
            show_bytes(bytes),
            show_bytes(max)
        );
        lines.push(vec![(style, text)]);
    }
    lines.push(vec![]);
}

fn autonomy(status: &Value, lines: &mut Vec<Line>) {
    let wanted = seconds(&status["survive_seconds"]);
    let mut line = vec![(Style::Bold, "Autonomy ".to_owned())];
    line.push(match status["autonomy_seconds"].as_f64() {
        None => plain(format!(
            "without the cloud: no publishes at present; {} at the rate of gateway.survive (required: {})",
            ago(&status["survive_autonomy_seconds"]),
            rough(wanted)
        )),
        Some(left) => (
            if left < wanted { Style::Bad } else { Style::Good },
            format!(
                "{} without the cloud at the present rate (required: {})",
                rough(left),
                rough(wanted)
            ),
        ),
    });
    lines.push(line);
}

fn deadlines(status: &Value, lines: &mut Vec<Line>) {
    let mut line = vec![(Style::Bold, "Next deadline: ".to_owned())];
    for (place, deadline) in items(&status["deadlines"]).iter().take(4).enumerate() {
        let left = seconds(&deadline["in_seconds"]);
        let style = match left {
            _ if left < SOON => Style::Bad,
            _ if left < BEFORE_LONG => Style::Warn,
            _ => Style::Plain,
        };
        let (what, ends) = match text(&deadline["what"]) {
            "disk" => ("disk full", "disk is full"),
            "quota" => ("disk full, at the cloud's quota", "disk is full"),
            "certificate" => ("server certificate", "server certificate expired"),
            "device_ca" => ("device CA", "device CA expired"),
            "crl" => ("revocation list", "revocation list expired"),
            "cloud_certificate" => ("cloud certificate", "cloud certificate expired"),
            "cloud_ca" => ("cloud CA", "cloud CA expired"),
            other => (other, other),
        };
        let separator = if place == 0 { "" } else { "; " };
        let text = match date(text(&deadline["at"])) {
            _ if left < 0.0 => format!("{separator}{ends} {} ago", rough(-left)),
            Some(date) if left >= DATED => format!("{separator}{what}, {date}"),
            _ => format!("{separator}{what} in {}", rough(left)),
        };
        line.push((style, text));
    }
    if line.len() == 1 {
        line.push(plain("none within ten years"));
    }
    lines.push(line);
    lines.push(vec![]);
}

/// The date of a moment in RFC 3339: `30 Nov 2031`.
fn date(moment: &str) -> Option<String> {
    let date = OffsetDateTime::parse(moment, &Rfc3339).ok()?.date();
    let month = date.month().to_string();
    Some(format!("{} {} {}", date.day(), month.get(..3)?, date.year()))
}

fn problems(status: &Value, lines: &mut Vec<Line>) {
    let all = items(&status["problems"]);
    if all.is_empty() {
        lines.push(vec![(Style::Good, "Nothing is wrong".to_owned())]);
    } else {
        lines.push(vec![(Style::Bad, format!("Wrong ({})", all.len()))]);
    }
    for problem in all.iter().take(PROBLEMS) {
        for (place, part) in wrapped(text(problem), WIDTH - 4).into_iter().enumerate() {
            lines.push(vec![plain(if place == 0 { "  - " } else { "    " }), plain(part)]);
        }
    }
    if all.len() > PROBLEMS {
        lines.push(vec![(Style::Dim, format!("    and {} more: --json", all.len() - PROBLEMS))]);
    }
    lines.push(vec![]);
}

fn devices(status: &Value, lines: &mut Vec<Line>) {
    let all = items(&status["devices"]["list"]);
    if all.is_empty() {
        lines.push(vec![(Style::Dim, "No device has been seen yet".to_owned())]);
        return;
    }
    let shown = || all.iter().take(DEVICES);
    let longest = shown().map(|device| text(&device["identity"]).chars().count()).max();
    let width = longest.unwrap_or_default().clamp(6, 32);
    let title = format!("{:<width$}  {:<11}  trouble", "Device", "last seen");
    lines.push(vec![(Style::Bold, title)]);
    for device in shown() {
        let name: String = text(&device["identity"]).chars().take(width).collect();
        let seen = match &device["last_seen_seconds"] {
            Value::Null => "never".to_owned(),
            seconds => format!("{} ago", ago(seconds)),
        };
        let mut line = vec![plain(format!("{name:<width$}  {seen:<11}  "))];
        let troubles: Vec<&str> = items(&device["troubles"]).iter().map(text).collect();
        if troubles.is_empty() {
            line.push((Style::Dim, "none".to_owned()));
        }
        let indent = width + 15;
        let parts = troubles
            .iter()
            .flat_map(|trouble| wrapped(trouble, WIDTH.saturating_sub(indent).max(40)));
        for (place, part) in parts.enumerate() {
            if place > 0 {
                lines.push(std::mem::replace(&mut line, vec![plain(" ".repeat(indent))]));
            }
            line.push((Style::Warn, part));
        }
        lines.push(line);
    }
    let known = status["devices"]["known"].as_u64().unwrap_or(0);
    let more = known.saturating_sub(shown().count() as u64);
    if more > 0 {
        lines.push(vec![(Style::Dim, format!("and {more} more, those with trouble first: --json"))]);
    }
}

fn plain(text: impl Into<String>) -> (Style, String) {
    (Style::Plain, text.into())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn rate(value: &Value) -> String {
    format!("{:.1}", seconds(value))
}

fn ago(value: &Value) -> String {
    rough(seconds(value))
}

fn rough(seconds: f64) -> String {
    crate::monitor::signals::rough(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// Thousands apart, for reading.
fn whole(value: &Value) -> String {
    let digits = value.as_u64().unwrap_or_default().to_string();
    let mut apart = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

/// Lines of at most `width` characters, broken between words; a longer word stays whole.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let used = lines.last().map_or(0, |line| line.chars().count());
        if used > 0 && used + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
