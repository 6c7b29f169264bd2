//! A damaged checkpoint: the gateway starts, and says what is lost.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use forebay_broker::StateReport;
use forebay_broker::codec::{Packet, Publish, ReasonCode};
use support::{Bench, Client, Setup, connect_5, publish, resume_5, state_file, within};

const OK: ReasonCode = ReasonCode::SUCCESS;
const PAGE: usize = 4096;
const RETAINED: u16 = 60;
const SESSIONS: usize = 30;
/// Gateways that run side by side.
const AT_ONCE: usize = 8;

fn copied(from: &Path) -> Arc<tempfile::TempDir> {
    fn copy(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&target).unwrap();
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy(from, to.path());
    Arc::new(to)
}

/// A directory with retained messages and sessions, all of them in the checkpoint only, and that checkpoint as a kill leaves it.
async fn filled() -> (Arc<tempfile::TempDir>, Vec<u8>) {
    let bench = Bench::new().await;
    let mut device = Client::connected(bench.address(), connect_5("device")).await;
    for number in 1..=RETAINED {
        let Packet::Publish(message) = publish(&format!("kept/{number}"), 1, Some(number)) else {
            unreachable!()
        };
        let retained = Publish {
            retain: true,
            payload: vec![b'x'; 200 * usize::from(number % 7)].into(),
            ..message
        };
        let retained = if retained.payload.is_empty() {
            Publish {
                payload: "small".into(),
                ..retained
            }
        } else {
            retained
        };
        device.send(&Packet::Publish(retained)).await;
        device.expect_ack(number, OK).await;
    }
    for number in 0..SESSIONS {
        let mut client = Client::connected(bench.address(), resume_5(&format!("s{number}"))).await;
        client.subscribe(1, &format!("here/{number}/#")).await;
    }
    let (directory, setup, _) = bench.stop().await;
    let bench = Bench::start_in(directory, setup).await;
    assert_eq!(bench.view.state_report(), StateReport::default());
    let killed = fs::read(state_file(&bench.directory)).unwrap();
    let (directory, _, _) = bench.stop().await;
    (directory, killed)
}

/// How many retained messages a new subscription gets.
async fn retained(bench: &Bench) -> usize {
    let mut reader = Client::connected(bench.address(), connect_5("reader")).await;
    reader.subscribe(1, "kept/#").await;
    reader.send(&Packet::PingReq).await;
    let mut count = 0;
    loop {
        match within("retained messages", reader.receive()).await {
            Some(Packet::Publish(_)) => count += 1,
            Some(Packet::PingResp) => return count,
            other => panic!("{other:?}"),
        }
    }
}

/// Zeroes every page in turn, after a clean stop and after a kill; and the file is missing, empty, cut, or not a database.
#[tokio::test(flavor = "multi_thread")]
async fn e9_a_damaged_checkpoint_never_keeps_the_gateway_down_and_every_loss_is_told() {
    let (directory, killed) = filled().await;
    let clean = fs::read(state_file(&directory)).unwrap();
    let mut cases: Vec<(String, Option<Vec<u8>>)> = vec![
        ("it is missing".to_owned(), None),
        ("it is empty".to_owned(), Some(Vec::new())),
        ("it is text".to_owned(), Some(b"not a database".repeat(1000))),
        ("it is cut".to_owned(), Some(clean[..clean.len() / 2].to_vec())),
    ];
    for (what, bytes) in [("a clean stop", &clean), ("a kill", &killed)] {
        cases.push((format!("as {what} leaves it"), Some(bytes.clone())));
        for page in 0..bytes.len().div_ceil(PAGE) {
            let end = bytes.len().min((page + 1) * PAGE);
            if bytes[page * PAGE..end].iter().any(|byte| *byte != 0) {
                let mut damaged = bytes.clone();
                damaged[page * PAGE..end].fill(0);
                cases.push((format!("page {page} is zeroed after {what}"), Some(damaged)));
            }
        }
    }
    // Mostly they wait for a gateway to stop.
    let mut reports: Vec<StateReport> = Vec::new();
    for cases in cases.chunks(AT_ONCE) {
        let tried = cases
            .iter()
            .map(|(what, bytes)| survives(copied(directory.path()), what.clone(), bytes.clone()));
        let running: Vec<_> = tried.map(tokio::spawn).collect();
        for case in running {
            reports.push(case.await.unwrap());
        }
    }
    let lost = reports.iter().filter(|report| report.is_lost).count();
    assert!(lost >= 6 && reports.len() - lost >= 2, "{lost} of {}", reports.len());
}

/// Starts a gateway on this state file (`None`: without one); what it reports of it is true, told once, and what comes later is kept.
async fn survives(directory: Arc<tempfile::TempDir>, what: String, state: Option<Vec<u8>>) -> StateReport {
    match state {
        Some(bytes) => fs::write(state_file(&directory), bytes).unwrap(),
        None => fs::remove_file(state_file(&directory)).unwrap(),
    }
    let bench = Bench::start_in(directory, Setup::default()).await;
    let report = bench.view.state_report();
    let sessions = bench.view.sessions();
    let found = (retained(&bench).await, sessions);
    let is_whole = found == (usize::from(RETAINED), SESSIONS);
    assert!(is_whole || report.is_lost, "{what}: {found:?} {report:?}");
    bench.assert_serves(&what).await;
    let mut client = Client::connected(bench.address(), resume_5("later")).await;
    client.subscribe(1, "later/#").await;
    drop(client);
    let (directory, setup, _) = bench.stop().await;
    let bench = Bench::start_in(directory, setup).await;
    assert_eq!(bench.view.state_report(), StateReport::default(), "{what}");
    let (_, connack) = Client::connect(bench.address(), resume_5("later")).await;
    assert!(connack.session_present, "{what}");
    bench.stop().await;
    report
}
