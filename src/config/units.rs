//! Values with units: durations, byte sizes, rates, percent. A number without its unit is refused, so that no reader has to
//! guess whether `5` was seconds.

use std::time::Duration;

const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `500ms`, `30s`, `20m`, `12h`, `7d`; zero needs no unit.
///
/// # Errors
/// The reason, for the operator.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, DURATION_UNITS, "a duration such as 500ms, 30s, 20m, 12h or 7d").map(Duration::from_millis)
}

/// Reads `5000B`, `128KiB`, `64MB`, `4GiB`: `KiB` is 1024 bytes, `KB` 1000; zero needs no unit.
///
/// # Errors
/// The reason, for the operator.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    scaled(text, BYTE_UNITS, "a size such as 5000B, 128KiB or 4GiB")
}

/// Reads `50/s` as events per second; `30/m` is half of one per second.
///
/// # Errors
/// The reason, for the operator.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let expected = || format!("{} is not a rate such as 50/s or 30/m", shown(text));
    let (number, unit) = text.split_once('/').ok_or_else(expected)?;
    let per = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(expected()),
    };
    let number: f64 = number.trim().parse().map_err(|_| expected())?;
    if number.is_finite() && number >= 0.0 {
        Ok(number / per)
    } else {
        Err(expected())
    }
}

/// Reads `64KiB/s` as bytes per second.
///
/// # Errors
/// The reason, for the operator.
pub(crate) fn bandwidth(text: &str) -> Result<u64, String> {
    let expected = || format!("{} is not a bandwidth such as 64KiB/s", shown(text));
    let size = text.strip_suffix("/s").ok_or_else(expected)?;
    bytes(size.trim()).map_err(|_| expected())
}

/// Reads `1%` as the share 0.01.
///
/// # Errors
/// The reason, for the operator.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let expected = || format!("{} is not a share such as 1% (0% to 100%)", shown(text));
    let number: f64 = text
        .strip_suffix('%')
        .ok_or_else(expected)?
        .trim()
        .parse()
        .map_err(|_| expected())?;
    if (0.0..=100.0).contains(&number) {
        Ok(number / 100.0)
    } else {
        Err(expected())
    }
}

/// The shortest exact way to write a duration: `90s`, `2h`, `1500ms`.
#[must_use]
pub(crate) fn show_duration(value: Duration) -> String {
    show(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), "ms", DURATION_UNITS)
}

/// A size for reading: `4GiB`, `1.7GiB`, `300B`.
#[must_use]
pub(crate) fn show_bytes(value: u64) -> String {
    if value == 0 {
        return "0B".to_owned();
    }
    let binary = &BYTE_UNITS[..5];
    let exact = binary
        .iter()
        .rev()
        .find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale));
    if let Some((unit, scale)) = exact
        && value / scale < 10_000
    {
        return format!("{}{unit}", value / scale);
    }
    let (unit, scale) = binary.iter().rev().find(|(_, scale)| value >= *scale).copied().unwrap_or(("B", 1));
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let scaled = value as f64 / scale as f64;
    format!("{scaled:.1}{unit}")
}

fn show(value: u64, smallest: &str, units: &[(&str, u64)]) -> String {
    let best = units
        .iter()
        .rev()
        .find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale));
    best.map_or_else(|| format!("{value}{smallest}"), |(unit, scale)| format!("{}{unit}", value / scale))
}

fn scaled(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(0);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        let known = units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(if number.is_empty() {
            format!("{} is not {example}", shown(text))
        } else if unit.is_empty() {
            format!("the unit is missing: write {example}")
        } else {
            format!("`{unit}` is not a unit; known units: {known}")
        });
    };
    let too_large = || format!("{} is too large", shown(text));
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*scale).ok_or_else(too_large);
    }
    let fraction: f64 = number.parse().map_err(|_| format!("{} is not {example}", shown(text)))?;
    #[expect(clippy::cast_precision_loss, reason = "a fraction of a unit was asked for")]
    let value = fraction * *scale as f64;
    if !value.is_finite() || value >= 9e18 {
        return Err(too_large());
    }
    if value.fract() != 0.0 && *scale == 1 {
        return Err(format!("{} is finer than the smallest unit", shown(text)));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be between 0 and 9e18"
    )]
    Ok(value.round() as u64)
}

fn shown(text: &str) -> String {
    format!("`{text}`")
}
