//! The stand-in as a process, steered by JSON lines.

#![allow(
    clippy::type_complexity,
    clippy::unwrap_used,
    reason = "tables of cases; a helper that fails fails the test"
)]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use forebay_aws_standin::certificates::Authority;
use serde_json::{Value, json};
use support::{Raw, tls_connect};

struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aws-standin"));
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("ready ").expect("a ready line").parse().unwrap();
        Self {
            child,
            stdin,
            stdout,
            address,
        }
    }

    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.stdin.as_ref().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Ends it by ending its stdin.
    fn end(mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn faults_and_questions_go_over_stdin_and_the_ledger_file_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger.jsonl");
    let arguments = ["--ledger", ledger.to_str().unwrap()];
    let mut process = Process::start(&arguments);
    assert_eq!(process.ask(&json!({"cmd": "drop_pubacks", "next": 1}))["ok"], true);
    let mut raw = Raw::connected(process.address, 5, "c").await;
    raw.publish("t", br#"{"device":"d","seq":1}"#, 1, 1).await;
    raw.publish("t", b"hello", 1, 2).await;
    raw.expect_puback(2, 0).await;
    assert_eq!(process.ask(&json!({"cmd": "contains", "payload": "hello"}))["times"], 1);
    assert_eq!(process.ask(&json!({"cmd": "contains_key", "device": "d", "seq": 1}))["found"], true);
    assert_eq!(
        process.ask(&json!({"cmd": "wait", "count": 2, "within_ms": 1000}))["ledger"]["count"],
        2
    );
    assert_eq!(process.ask(&json!({"cmd": "wait", "count": 3, "within_ms": 1}))["ok"], false);
    let stats = process.ask(&json!({"cmd": "stats"}));
    assert_eq!((&stats["stats"]["acks_dropped"], &stats["violations"]), (&json!(1), &json!(0)));
    assert_eq!(process.ask(&json!({"cmd": "stop_listening"}))["ok"], true);
    assert!(tokio::net::TcpStream::connect(process.address).await.is_err());
    assert_eq!(process.ask(&json!({"cmd": "resume_listening"}))["ok"], true);
    for wrong in [
        json!({"cmd": "explode"}),
        json!({"cmd": "stall"}),
        json!({"cmd": "stall", "on": true, "off": 1}),
    ] {
        assert_eq!(process.ask(&wrong)["ok"], false, "{wrong}");
    }
    process.end();

    let mut process = Process::start(&arguments);
    assert_eq!(process.ask(&json!({"cmd": "contains", "payload": "hello"}))["times"], 1);
    assert_eq!(process.ask(&json!({"cmd": "devices"}))["devices"]["d"]["unique"], 1);
    process.end();
}

#[tokio::test]
async fn every_documented_command_is_understood() {
    let mut process = Process::start(&[]);
    for command in [
        json!({"cmd": "violations"}),
        json!({"cmd": "connects"}),
        json!({"cmd": "refuse_connects", "count": 0, "code": 0x87}),
        json!({"cmd": "drop_connacks", "every": 2}),
        json!({"cmd": "close_after_connack"}),
        json!({"cmd": "duplicate_pubacks", "all": true}),
        json!({"cmd": "delay_connacks", "ms": 0}),
        json!({"cmd": "delay_acks", "ms": 0}),
        json!({"cmd": "reorder_acks", "group": 0}),
        json!({"cmd": "stall", "on": false}),
        json!({"cmd": "answer", "topic": "*", "code": 0x97, "times": 1}),
        json!({"cmd": "answer", "topic": "*", "code": 0x97}),
        json!({"cmd": "clear_answers"}),
        json!({"cmd": "forget_sessions"}),
        json!({"cmd": "deny", "topic": "x/*"}),
        json!({"cmd": "allow", "topic": "x/*"}),
        json!({"cmd": "close_at_publish", "nth": 1, "point": "after_commit", "cut": "reset"}),
        json!({"cmd": "cut_all", "cut": "fin"}),
        json!({"cmd": "disconnect_all", "code": 0x8B}),
        json!({"cmd": "flap", "steps": [{"down_ms": 0, "up_ms": 0}]}),
        json!({"cmd": "clear"}),
    ] {
        assert_eq!(process.ask(&command)["ok"], true, "{command}");
    }
    process.end();
}

#[tokio::test]
async fn the_process_serves_mutual_tls_from_pem_files() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority").unwrap();
    let server = authority.server().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key, ca) = (
        file("c.pem", &server.certificate),
        file("k.pem", &server.key),
        file("ca.pem", &authority.pem()),
    );
    let process = Process::start(&["--cert", &cert, "--key", &key, "--client-ca", &ca, "--sni", "localhost"]);
    let tls = authority.client_tls(Some(&authority.client("gateway").unwrap())).unwrap();
    assert_eq!(tls_connect(process.address, "localhost", tls.clone()).await.unwrap()[3], 0);
    assert!(tls_connect(process.address, "other.example", tls).await.is_err());
    process.end();
}
