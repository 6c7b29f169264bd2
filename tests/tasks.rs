//! Every long-lived task and thread panics once: the gateway ends with code 70 and its name, or starts it again and says so.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::gateway::Gateway;
use support::{eventually, telemetry, within};

/// How soon a death must be seen from outside.
const SEEN: Duration = Duration::from_secs(5);

/// Those without which messages would stand still or be lost unseen.
const VITAL: [&str; 15] = [
    "admin",
    "bridge",
    "os-signals",
    "devices",
    "listener",
    "checkpoint",
    "retained-expiry",
    "session-expiry",
    "peer-log",
    "fanout-inlet",
    "fanout-outlet",
    "wal",
    "watch",
    "log",
    // Asked twice: the second gateway must find what the first one left behind.
    "wal",
];
const STARTED_AGAIN: [&str; 3] = ["canary", "self-check", "traces"];

/// A running gateway, and the file that says which task is to panic.
async fn gateway() -> (Gateway, PathBuf, forebay_aws_standin::Standin) {
    let (cloud, _) = telemetry::cloud().await;
    let mut gateway = Gateway::new(&format!(
        "gateway: {{id: tasks, max_disk: 128MiB, keep_free: 0B}}\n\
         listeners: [{{bind: \"127.0.0.1:0\", identity: \"{{client_id}}\"}}]\n\
         cloud: {{profile: mqtt, endpoint: 127.0.0.1, port: {}, canary: 1m}}\n\
         admin: {{bind: \"127.0.0.1:0\", otlp: {{endpoint: \"http://127.0.0.1:1\"}}}}\n",
        cloud.address().port()
    ));
    let wanted = gateway.folder().join("panic");
    gateway = gateway.with_variable("FOREBAY_TEST_PANIC", &wanted.display().to_string());
    gateway.start().await;
    (gateway, wanted, cloud)
}

fn ask(wanted: &PathBuf, task: &str) {
    let whole = wanted.with_extension("new");
    std::fs::write(&whole, task).unwrap();
    std::fs::rename(whole, wanted).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_panic_in_any_vital_task_ends_the_gateway_with_70_and_its_name() {
    for task in VITAL {
        let (mut gateway, wanted, _cloud) = gateway().await;
        ask(&wanted, task);
        if task == "log" {
            // Its thread does nothing until there is a line.
            gateway.signal(Signal::HUP);
        }
        let began = Instant::now();
        within(SEEN, &format!("the death of `{task}` is seen"), || async {
            // No answer at all is the end of the process, or of admin.
            let healthy = gateway.get("/healthz").await.is_some_and(|(code, _)| code == 200);
            (!healthy).then_some(())
        })
        .await;
        assert!(began.elapsed() < SEEN + Duration::from_secs(2));
        assert_eq!(gateway.ended().await, 70, "`{task}`:\n{}", gateway.log());
        // With the log's own thread its last words are gone.
        assert!(
            task == "log" || gateway.log().contains(&format!("`{task}`")),
            "`{task}`:\n{}",
            gateway.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_must_end_says_so_in_its_status_before() {
    let (mut gateway, wanted, _cloud) = gateway().await;
    ask(&wanted, "bridge");
    within(SEEN, "/status names the task", || async {
        let status: serde_json::Value = serde_json::from_str(&gateway.get("/status").await?.1).ok()?;
        let named = |field: &serde_json::Value| field.to_string().contains("the task `bridge` has ended");
        (named(&status["tasks"]["dead"]) && named(&status["problems"])).then_some(())
    })
    .await;
    assert_eq!(gateway.ended().await, 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_task_that_no_message_needs_is_told_and_the_task_runs_again() {
    let (mut gateway, wanted, _cloud) = gateway().await;
    for task in STARTED_AGAIN {
        ask(&wanted, task);
        let label = format!("task=\"{task}\"");
        eventually(&format!("`{task}` is started again"), || async {
            (gateway.metric("forebay_task_restarts_total", &[&label]).await == 1.0).then_some(())
        })
        .await;
        let status = gateway.status().await;
        let problems = status["problems"].to_string();
        assert!(
            problems.contains(&format!("the task `{task}` ended unasked and was started again")),
            "{problems}"
        );
        assert_eq!(status["tasks"]["restarts"][task], 1);
        assert_eq!(gateway.get("/healthz").await.unwrap().0, 200);
    }
    assert_eq!(gateway.stop().await, 0);
}
