//! `/metrics` judged by Prometheus' own tool.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Stdio;

use support::program::program;
use support::scene::Scene;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let mut gateway = Scene::new("metrics").cloud_on(9).gateway();
    gateway.start().await;
    let (code, text) = support::eventually("/metrics answers", || gateway.get("/metrics")).await;
    assert_eq!(code, 200);
    assert!(text.contains("forebay_accepted_total"), "{text}");

    let mut promtool = Command::new(program("promtool", "prometheus"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let said = promtool.wait_with_output().await.unwrap();
    let words = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}");
    assert_eq!(gateway.stop().await, 0);
}
