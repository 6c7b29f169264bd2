//! Signals, and the end of the process: what ends it, what must not, and how long that may take.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use support::gateway::{FOREBAY, Gateway};
use support::{DEADLINE, eventually};
use tokio::process::Command;

const CONFIG: &str = "gateway: {id: stop, max_disk: 128MiB, keep_free: 0B}\n\
                      listeners: [{bind: \"127.0.0.1:0\", identity: \"{client_id}\"}]\n\
                      cloud: {profile: mqtt, endpoint: 127.0.0.1, port: 1}\n\
                      admin: {bind: \"127.0.0.1:0\"}\n";

#[tokio::test(flavor = "multi_thread")]
async fn b3_hangup_and_user_signals_change_nothing_and_are_told() {
    let mut gateway = Gateway::new(CONFIG);
    gateway.start().await;
    for (signal, words) in [
        (Signal::HUP, "this version does not reload its configuration"),
        (Signal::USR1, "SIGUSR1 does nothing"),
        (Signal::USR2, "SIGUSR2 does nothing"),
    ] {
        gateway.signal(signal);
        gateway.logs(&[words]).await;
        assert_eq!(gateway.get("/healthz").await.unwrap().0, 200);
    }
    assert_eq!(gateway.stop().await, 0);
}

/// Through a shell that lets others read, write and enter what is made.
#[tokio::test(flavor = "multi_thread")]
async fn b7_what_the_gateway_writes_is_for_its_user_alone_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut gateway = Gateway::new(&CONFIG.replace("admin: {", "watch: [{topic: \"devices/#\", every: 1m}]\nadmin: {"));
    std::fs::set_permissions(gateway.folder(), std::fs::Permissions::from_mode(0o777)).unwrap();
    gateway = gateway.through(&["sh", "-c", "umask 000; exec \"$0\" \"$@\""]);
    gateway.start().await;
    for life in ["running", "stopped"] {
        let (mut ways, mut seen) = (vec![gateway.folder().join("data")], 0);
        while let Some(path) = ways.pop() {
            let found = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(found.permissions().mode() & 0o077, 0, "{life}: {}", path.display());
            seen += 1;
            if found.is_dir() {
                ways.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        assert!(seen >= 5, "{life}: data, log, lock, a segment and state.redb at least");
        if life == "running" {
            assert_eq!(gateway.stop().await, 0);
        }
    }
}

/// The configuration is a pipe that nobody has written to yet, so the gateway is at its very beginning. As the first process of
/// a container a signal without a handler would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn e18_a_stop_right_after_the_start_is_obeyed_also_by_the_first_process() {
    let direct: &[&str] = &[];
    let first: &[&str] = &["unshare", "--pid", "--fork", "--kill-child"];
    let is_root = rustix::process::geteuid().is_root();
    for prefix in [direct, first].into_iter().filter(|prefix| prefix.is_empty() || is_root) {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("forebay.yaml");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let words = [prefix, &[FOREBAY, "run", "--config", pipe.to_str().unwrap()]].concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let outer = child.id().unwrap();
        let gateway = eventually("the gateway hears SIGTERM", || async { hearing(outer, !prefix.is_empty()) }).await;
        rustix::process::kill_process(gateway, Signal::TERM).unwrap();
        let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0), "{prefix:?}");
    }
}

/// The gateway's process, once it has a handler for SIGTERM; the child of `outer` if it was started through it.
fn hearing(outer: u32, is_child: bool) -> Option<Pid> {
    let process = if is_child {
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()?
    } else {
        outer
    };
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim();
    let caught = u64::from_str_radix(caught, 16).ok()?;
    let is_handled = caught & (1 << (Signal::TERM.as_raw() - 1)) != 0;
    is_handled.then(|| Pid::from_raw(process.cast_signed())).flatten()
}

/// A resolver that does not answer blocks one of our threads; the process ends without it.
#[tokio::test(flavor = "multi_thread")]
async fn e18_a_stop_does_not_wait_for_a_resolver_that_hangs() {
    // A name server that takes queries and gives no answer.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:53").await;
    let Ok(_silent) = silent else {
        eprintln!("skipped: port 53 is not free here");
        return;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, to give the gateway a name server of its own");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let resolv = folder.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n").unwrap();
    let mount = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv.display());
    let mut gateway = Gateway::new(&CONFIG.replace(
        "endpoint: 127.0.0.1, port: 1",
        "endpoint: cloud.invalid, port: 8883, insecure: true",
    ))
    .through(&["unshare", "--mount", "sh", "-c", &mount, "resolver"]);
    gateway.start().await;
    eventually("the cloud is being dialled", || async {
        (gateway.status().await["cloud"]["state"] == "connecting").then_some(())
    })
    .await;
    let began = Instant::now();
    assert_eq!(gateway.stop().await, 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
