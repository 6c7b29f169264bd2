//! The stand-in as a process is steered by JSON lines: one command per line on stdin, one reply per line on stdout.
//!
//! A reply is `{"ok":true, ...}` or `{"ok":false,"error":"..."}`. Commands, with their further fields:
//!
//! | `cmd` | fields | does |
//! |---|---|---|
//! | `stats` | | replies with `stats`, `ledger` and `violations` (a count) |
//! | `violations` | | replies with the texts, and those of refused handshakes |
//! | `devices` | | replies with what arrived per device |
//! | `connects` | | replies with the CONNECTs seen |
//! | `contains` | `payload` | replies with `times` that payload was committed |
//! | `contains_key` | `device`, `seq` | replies with `found` |
//! | `wait` | `count`, `within_ms` | replies when so many different publishes are committed, or with an error |
//! | `refuse_connects` | `count`, `code` | see [`Faults::refuse_connects`] |
//! | `drop_connacks`, `close_after_connack`, `drop_pubacks`, `duplicate_pubacks` | one of `next`, `every`, `all` | none of them: off |
//! | `delay_connacks`, `delay_acks` | `ms` | 0: off |
//! | `reorder_acks` | `group` | 0: off |
//! | `stall` | `on` | |
//! | `answer` | `topic`, `code`, `times` (left out: all) | |
//! | `clear_answers`, `clear`, `forget_sessions` | | |
//! | `deny`, `allow` | `topic` | |
//! | `close_at_publish` | `nth`, `point` (`before_commit`, `after_commit`), `cut` (`fin`, `reset`) | |
//! | `cut_all` | `cut` | |
//! | `disconnect_all` | `code` | |
//! | `stop_listening`, `resume_listening` | | |
//! | `flap` | `steps`: `[{"down_ms":..,"up_ms":..}]` | |

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Standin,
    faults::{Cut, Faults, Flap, ListenError, Point, Which},
};

#[derive(Debug, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Stats {},
    Violations {},
    Devices {},
    Connects {},
    Contains { payload: String },
    ContainsKey { device: String, seq: u64 },
    Wait { count: u64, within_ms: u64 },
    RefuseConnects { count: u64, code: u8 },
    DropConnacks(Selection),
    CloseAfterConnack(Selection),
    DropPubacks(Selection),
    DuplicatePubacks(Selection),
    DelayConnacks { ms: u64 },
    DelayAcks { ms: u64 },
    ReorderAcks { group: usize },
    Stall { on: bool },
    Answer { topic: String, code: u8, times: Option<u64> },
    ClearAnswers {},
    Clear {},
    ForgetSessions {},
    Deny { topic: String },
    Allow { topic: String },
    CloseAtPublish { nth: u64, point: Point, cut: Cut },
    CutAll { cut: Cut },
    DisconnectAll { code: u8 },
    StopListening {},
    ResumeListening {},
    Flap { steps: Vec<Flap> },
}

/// [`Which`], as JSON.
#[derive(Debug, Deserialize)]
struct Selection {
    next: Option<u64>,
    every: Option<u64>,
    #[serde(default)]
    all: bool,
}

impl From<Selection> for Which {
    fn from(selection: Selection) -> Self {
        match selection {
            Selection { all: true, .. } => Self::All,
            Selection { every: Some(k), .. } => Self::Every(k),
            Selection { next: Some(count), .. } => Self::Next(count),
            Selection { .. } => Self::None,
        }
    }
}

/// Carries out one line and returns the reply, without a line end.
pub async fn answer(standin: &Standin, line: &str) -> String {
    let reply = match serde_json::from_str(line) {
        Ok(command) => carry_out(standin, command).await,
        Err(error) => Err(format!("not a command: {error}")),
    };
    let reply = match reply {
        Ok(mut fields) => {
            fields["ok"] = Value::Bool(true);
            fields
        }
        Err(error) => json!({"ok": false, "error": error}),
    };
    reply.to_string()
}

async fn carry_out(standin: &Standin, command: Command) -> Result<Value, String> {
    let ledger = standin.ledger();
    match command {
        Command::Stats {} => Ok(json!({"stats": standin.stats(), "ledger": ledger.report(), "violations": standin.violation_count()})),
        Command::Violations {} => Ok(json!({"violations": standin.violations(), "refusals": standin.refusals()})),
        Command::Devices {} => Ok(json!({"devices": ledger.devices()})),
        Command::Connects {} => Ok(json!({"connects": standin.connects()})),
        Command::Contains { payload } => Ok(json!({"times": ledger.times(payload.as_bytes())})),
        Command::ContainsKey { device, seq } => Ok(json!({"found": ledger.contains_key(&device, seq)})),
        Command::Wait { count, within_ms } => {
            let waited = ledger
                .wait_for(Duration::from_millis(within_ms), |ledger| ledger.unique() >= count)
                .await;
            waited.map_err(|error| error.to_string())?;
            Ok(json!({"ledger": ledger.report()}))
        }
        fault => set(&standin.faults(), fault)
            .await
            .map(|()| json!({}))
            .map_err(|error| error.to_string()),
    }
}

async fn set(faults: &Faults, command: Command) -> Result<(), ListenError> {
    match command {
        Command::RefuseConnects { count, code } => faults.refuse_connects(count, code),
        Command::DropConnacks(selection) => faults.drop_connacks(selection.into()),
        Command::CloseAfterConnack(selection) => faults.close_after_connack(selection.into()),
        Command::DropPubacks(selection) => faults.drop_pubacks(selection.into()),
        Command::DuplicatePubacks(selection) => faults.duplicate_pubacks(selection.into()),
        Command::DelayConnacks { ms } => faults.delay_connacks(Duration::from_millis(ms)),
        Command::DelayAcks { ms } => faults.delay_acks(Duration::from_millis(ms)),
        Command::ReorderAcks { group } => faults.reorder_acks(group),
        Command::Stall { on } => faults.stall(on),
        Command::Answer { topic, code, times } => faults.answer(&topic, code, times),
        Command::ClearAnswers {} => faults.clear_answers(),
        Command::Clear {} => faults.clear(),
        Command::ForgetSessions {} => faults.forget_sessions(),
        Command::Deny { topic } => faults.deny(&topic),
        Command::Allow { topic } => faults.allow(&topic),
        Command::CloseAtPublish { nth, point, cut } => faults.close_at_publish(nth, point, cut),
        Command::CutAll { cut } => faults.cut_all(cut),
        Command::DisconnectAll { code } => faults.disconnect_all(code),
        Command::StopListening {} => faults.stop_listening().await?,
        Command::ResumeListening {} => faults.resume_listening().await?,
        Command::Flap { steps } => faults.flap(steps),
        // The questions were answered before.
        Command::Stats {}
        | Command::Violations {}
        | Command::Devices {}
        | Command::Connects {}
        | Command::Contains { .. }
        | Command::ContainsKey { .. }
        | Command::Wait { .. } => {}
    }
    Ok(())
}
