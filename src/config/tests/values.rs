//! Values with units.

use std::time::Duration;

use super::super::units::*;

#[test]
fn durations_need_a_unit_unless_they_are_zero() {
    for (text, expected) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("20m", 1_200_000),
        ("12h", 43_200_000),
        ("7d", 604_800_000),
        ("0", 0),
        ("1.5h", 5_400_000),
        ("30 s", 30_000),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
    }
    for text in [
        "30",
        "",
        "s",
        "-5s",
        "1e3s",
        "30sec",
        "1.0005ms",
        "99999999999999999999d",
        "1..5s",
        "5s 3m",
    ] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_tell_1024_from_1000() {
    for (text, expected) in [
        ("5000B", 5_000),
        ("128KiB", 131_072),
        ("64KB", 64_000),
        ("64kB", 64_000),
        ("4GiB", 4 << 30),
        ("1.5MiB", 1_572_864),
        ("1TiB", 1 << 40),
        ("0", 0),
    ] {
        assert_eq!(bytes(text), Ok(expected), "{text}");
    }
    for text in ["5", "5K", "5 bytes", "1.5B", "20000000TiB", "MiB"] {
        assert!(bytes(text).is_err(), "{text}");
    }
}

#[test]
fn rates_bandwidths_and_shares() {
    assert_eq!(rate("50/s"), Ok(50.0));
    assert_eq!(rate("30/m"), Ok(0.5));
    assert_eq!(rate("0.5 / s"), Ok(0.5));
    assert_eq!(bandwidth("64KiB/s"), Ok(65_536));
    assert_eq!(percent("1%"), Ok(0.01));
    for text in ["50", "/s", "-1/s", "inf/s", "1/d"] {
        assert!(rate(text).is_err(), "{text}");
    }
    assert!(bandwidth("64KiB").is_err() && bandwidth("64/s").is_err());
    assert!(percent("1").is_err() && percent("101%").is_err());
}

#[test]
fn values_are_shown_as_they_are_written() {
    for text in ["90s", "2h", "1500ms", "7d"] {
        assert_eq!(show_duration(duration(text).unwrap()), text);
    }
    for text in ["4GiB", "300B", "1536MiB", "1TiB"] {
        assert_eq!(show_bytes(bytes(text).unwrap()), text);
    }
    assert_eq!((show_bytes(1_000_000), show_bytes(0)), ("976.6KiB".to_owned(), "0B".to_owned()));
}
