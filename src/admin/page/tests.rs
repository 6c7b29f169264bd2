//! The screen says what `/status` says.

use serde_json::{Value, json};

use super::*;

fn status() -> Value {
    json!({
        "gateway": "plant-7", "version": "0.1.0", "uptime_seconds": 266_000, "problems": [],
        "flowing": {"state": "flowing", "accepted_per_second": 40.0, "delivered_per_second": 39.9},
        "streams": [{"name": "telemetry", "waiting": 1_234_567, "waiting_bytes": 10 << 20, "max_bytes": 1 << 30, "oldest_seconds": 200}],
        "autonomy_seconds": 111_600, "survive_seconds": 43_200, "survive_autonomy_seconds": 90_000,
        "deadlines": [{"what": "crl", "in_seconds": 90_000, "at": "2027-01-18T11:53:20Z"}, {"what": "certificate", "in_seconds": 8_640_000, "at": "2027-04-27T10:53:20Z"}],
        "cloud": {"state": "connected", "since": "2027-01-15T08:00:00Z"},
        "canary": {"round_trip_ms": 82, "waiting_seconds": null},
        "devices": {"known": 25, "connected": 24, "list": [
            {"identity": "board-1", "last_seen_seconds": 3, "troubles": []},
            {"identity": "board-2", "last_seen_seconds": 300, "troubles": ["has sent nothing on `devices/board-2/telemetry` for 5 min; it should send every 1m"]},
        ]},
    })
}

fn shown(status: &Value) -> String {
    terminal(&page(status), false)
}

#[test]
fn a_well_gateway_on_one_screen() {
    let expected = "\
plant-7  FLOWING   up 3 days, forebay 0.1.0
  in   40.0/s from 24 of 25 devices
  out  39.9/s to the cloud: connected since 2027-01-15T08:00:00Z, the canary took 82 ms

Waiting
  telemetry    1,234,567 records, 10MiB of 1GiB, the oldest for 3 min

Autonomy 31 h without the cloud at the present rate (required: 12 h)
Next deadline: revocation list in 25 h; server certificate, 27 Apr 2027

Nothing is wrong

Device   last seen    trouble
board-1  3 s ago      none
board-2  5 min ago    has sent nothing on `devices/board-2/telemetry` for 5 min; it should send
                      every 1m
and 23 more, those with trouble first: --json
";
    assert_eq!(shown(&status()), expected);
    assert!(is_well(&status()));
}

#[test]
fn problems_are_told_whole_and_nothing_is_coloured_unless_asked() {
    let mut status = status();
    let long = "the cloud is not connected: ".to_owned() + &"a long reason ".repeat(20);
    status["problems"] = json!([long, "second"]);
    status["flowing"]["state"] = "waiting".into();
    status["autonomy_seconds"] = 3600.into();
    let text = shown(&status);
    assert!(
        text.contains("WAITING FOR THE CLOUD") && text.contains("Wrong (2)") && text.contains("  - second"),
        "{text}"
    );
    assert_eq!(
        text.matches("a long reason").count() + text.matches("a long\n").count() + text.matches("a\n").count(),
        20,
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    assert!(!text.contains('\u{1b}') && !is_well(&status));
    let coloured = terminal(&page(&status), true);
    assert!(
        coloured.contains("\u{1b}[1;31mWrong (2)\u{1b}[0m") && coloured.contains("\u{1b}[1;31m60 min"),
        "{coloured:?}"
    );
}

#[test]
fn what_devices_chose_steers_neither_terminal_nor_browser() {
    let mut status = status();
    status["problems"] = json!(["topic `\u{1b}[2J<script>alert(1)</script>`"]);
    let text = shown(&status);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let document = document("<plant>", &page(&status), 5);
    assert!(!document.contains("<script") && document.contains("&lt;script&gt;"), "{document}");
    assert!(document.contains("<title>&lt;plant&gt;</title>") && document.contains("http-equiv=\"refresh\" content=\"5\""));
    for elsewhere in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!document.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn what_has_expired_and_what_is_empty_are_said_so() {
    let mut status = status();
    status["deadlines"] = json!([{"what": "certificate", "in_seconds": -90_000}]);
    assert!(shown(&status).contains("Next deadline: server certificate expired 25 h ago"));
    status["deadlines"] = json!([]);
    status["autonomy_seconds"] = Value::Null;
    status["devices"] = json!({"known": 0, "connected": 0, "list": []});
    status["cloud"] = Value::Null;
    let text = shown(&status);
    for words in [
        "none within ten years",
        "no publishes at present; 25 h at the rate",
        "No device has been seen yet",
        "no cloud is configured",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // An answer of something else: no panic.
    assert!(!page(&json!({"streams": 5, "devices": "x"})).is_empty());
}
