//! The admin server over real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_broker::{Bound, DeviceStatus, Disconnection, Lasting, UnroutedTopic};
use forebay_wal::{Doubt, Quarantined, Timestamp};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{State, bind, pages, server};
use crate::logging::Losses;
use crate::monitor::files::StaleFile;
use crate::monitor::self_check::Findings;
use crate::telemetry::Counted;
use crate::telemetry::tests::{Fake, everything, trouble, watching};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const DEADLINE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

async fn start(fake: &Arc<Fake>, limit: impl FnOnce(&mut server::Limits)) -> Running {
    let mut server = bind(LOOPBACK).await;
    limit(&mut server.limits);
    let (address, shutdown) = (server.address(), CancellationToken::new());
    let task = tokio::spawn(server.run(State::new(watching(fake), None), shutdown.clone()));
    Running { address, task, shutdown }
}

async fn send(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before it has read all of a bad request.
    socket.write_all(request.as_bytes()).await.ok();
    rest(&mut socket).await
}

/// Everything up to the end of the connection.
async fn rest(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer))
        .await
        .expect("the connection ends")
        .ok();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = send(address, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn every_path_answers_on_loopback() {
    let running = start(&Fake::new(), |_| {}).await;
    assert_eq!(fetch(running.address, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(fetch(running.address, "/readyz").await, (200, "ok\n".to_owned()));
    let (code, metrics) = fetch(running.address, "/metrics").await;
    assert!(code == 200 && metrics.contains("forebay_accepted_total 1234\n"), "{metrics}");
    let (code, status) = fetch(running.address, "/status?pretty").await;
    assert_eq!(
        (code, serde_json::from_str::<Value>(&status).unwrap()["gateway"].clone()),
        (200, "plant-7".into())
    );
    let (code, body) = fetch(running.address, "/").await;
    assert!(
        code == 200 && body.starts_with("<!doctype html>") && body.contains("plant-7"),
        "{body}"
    );
    let (code, body) = fetch(running.address, "/favicon.ico").await;
    assert!(code == 404 && body.contains("/metrics"), "{body}");
}

#[tokio::test]
async fn b9_no_path_answers_to_a_foreign_name() {
    let fake = Fake::new();
    let server = bind(LOOPBACK).await;
    let (address, shutdown) = (server.address(), CancellationToken::new());
    let telemetry = watching(&fake);
    let state = State::new(telemetry.clone(), None).with_names(vec!["prom.example".to_owned()]);
    tokio::spawn(server.run(state, shutdown.clone()));
    let paths = [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/status",
        "/log/stat",
        "/dead/records",
        "/audit",
        "/clock",
        "/nothing",
    ];
    let mut refused = 0;
    for path in paths {
        for method in ["GET", "HEAD", "POST"] {
            for (host, is_ours) in [
                (None, false),
                (Some("evil.example"), false),
                (Some("evil.example:9464"), false),
                (Some("EVIL.EXAMPLE."), false),
                (Some("localhost.evil.example"), false),
                (Some("127.0.0.1.evil.example"), false),
                (Some(""), false),
                (Some("127.0.0.1"), true),
                (Some("[::1]:9464"), true),
                (Some("LocalHost.:9464"), true),
                (Some("PROM.example.:80"), true),
            ] {
                let host = host.map_or_else(String::new, |host| format!("Host: {host}\r\n"));
                let answer = send(address, &format!("{method} {path} HTTP/1.1\r\n{host}\r\n")).await;
                assert_eq!(answer.starts_with("HTTP/1.1 421"), !is_ours, "{method} {path} {host}: {answer}");
                if !is_ours {
                    refused += 1;
                    let names_the_key = method == "HEAD" || answer.contains("admin.names");
                    assert!(names_the_key && !answer.contains("plant-7"), "{answer}");
                }
            }
        }
    }
    let metrics = telemetry.metrics(std::time::Instant::now()).unwrap();
    assert!(
        metrics.contains(&format!("forebay_admin_foreign_hosts_total {refused}\n")),
        "{metrics}"
    );
    shutdown.cancel();
}

#[tokio::test]
async fn readyz_names_what_is_missing_and_not_the_cloud() {
    let fake = Fake::new();
    let running = start(&fake, |_| {}).await;
    trouble(&mut fake.figures.lock().unwrap());
    assert_eq!(fetch(running.address, "/readyz").await.0, 200);
    fake.figures.lock().unwrap().log.unavailable = Some("no space is left".to_owned());
    let (code, body) = fetch(running.address, "/readyz").await;
    assert_eq!((code, body.as_str()), (503, "the log cannot be written: no space is left\n"));
    assert_eq!(fetch(running.address, "/healthz").await.0, 200);
    fake.figures.lock().unwrap().front.fanout_alive = false;
    let (code, body) = fetch(running.address, "/healthz").await;
    assert!(code == 503 && body.contains("restart"), "{body}");
}

#[tokio::test]
async fn head_has_no_body_and_nothing_else_is_allowed() {
    let running = start(&Fake::new(), |_| {}).await;
    let answer = send(running.address, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = send(
        running.address,
        "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabcd",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 405") && answer.to_lowercase().contains("allow: get, head"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_silent_peer_is_closed_and_holds_up_no_other() {
    let running = start(&Fake::new(), |limits| limits.head = Duration::from_millis(200)).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    silent.write_all(b"GET /metrics HTTP/1.1\r\nHos").await.unwrap();
    assert_eq!(fetch(running.address, "/healthz").await.0, 200);
    rest(&mut silent).await;
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_closed_at_the_connections_deadline() {
    let running = start(&Fake::new(), |limits| limits.connection = Duration::from_millis(200)).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(rest(&mut idle).await, "");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_room_comes_back() {
    let running = start(&Fake::new(), |limits| limits.connections = 2).await;
    let first = TcpStream::connect(running.address).await.unwrap();
    let second = TcpStream::connect(running.address).await.unwrap();
    let mut third = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(rest(&mut third).await, "", "closed without an answer");
    drop((first, second));
    let answered = async {
        while !send(running.address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
        {}
    };
    tokio::time::timeout(DEADLINE, answered).await.expect("room comes back");
}

#[tokio::test]
async fn hostile_bytes_are_answered_with_an_error_or_a_close() {
    let running = start(&Fake::new(), |_| {}).await;
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(2000));
    let requests = [
        long.as_str(),
        &many,
        "\u{0}\u{1}\u{2}\r\n\r\n",
        "GET\r\n\r\n",
        "GET /status HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in requests {
        let answer = send(running.address, request).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    assert_eq!(fetch(running.address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn shutdown_ends_the_server_with_a_peer_that_says_nothing() {
    let running = start(&Fake::new(), |_| {}).await;
    let _silent = TcpStream::connect(running.address).await.unwrap();
    running.shutdown.cancel();
    tokio::time::timeout(DEADLINE, running.task).await.expect("it ends").unwrap();
}

/// Answers as to a peer beyond loopback.
fn from_afar(token: Option<&str>, path: &str, authorization: Option<&str>) -> u16 {
    let config = token.map(|token| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("admin.token");
        std::fs::write(&file, token).unwrap();
        let yaml = format!(
            "gateway: {{id: g}}\nlisteners: [{{bind: 127.0.0.1:1883}}]\nadmin: {{token_file: {}}}\n",
            file.display()
        );
        let config = crate::config::parse(&yaml, directory.path(), &crate::config::Overrides::default());
        config.unwrap_or_else(|error| panic!("{error}")).admin.token.unwrap()
    });
    let state = State::new(watching(&Fake::new()), config);
    let mut request = hyper::Request::get(path);
    if let Some(value) = authorization {
        request = request.header("Authorization", value);
    }
    pages::answer(&request.body(()).unwrap(), &state, false).status().as_u16()
}

#[test]
fn beyond_loopback_status_wants_the_token() {
    let token = "0123456789abcdef0123";
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(from_afar(Some(token), path, None), 200, "{path}");
    }
    let wrong = [
        "0123456789abcdef0123",
        "Bearer 0123456789abcdef0124",
        "Bearer 0123456789abcdef01",
        "Bearer ",
        "Bearer",
        "Basic 0123456789abcdef0123",
    ];
    for given in [None]
        .into_iter()
        .chain(wrong.map(Some))
        .chain([Some("Bearer 0123456789abcdef01234")])
    {
        assert_eq!(from_afar(Some(token), "/status", given), 401, "{given:?}");
    }
    assert_eq!(from_afar(Some(token), "/status", Some("Bearer 0123456789abcdef0123")), 200);
    assert_eq!(from_afar(Some(token), "/status", Some("bearer 0123456789abcdef0123")), 200);
    assert_eq!(from_afar(None, "/status", Some("Bearer ")), 401, "no token opens nothing");
    // Of a browser: `admin:0123456789abcdef0123`, a wrong password, no colon, no Base64.
    assert_eq!(from_afar(Some(token), "/", Some("Basic YWRtaW46MDEyMzQ1Njc4OWFiY2RlZjAxMjM=")), 200);
    assert_eq!(from_afar(Some(token), "/", Some("Bearer 0123456789abcdef0123")), 200);
    for wrong in [
        "Basic YWRtaW46MDEyMzQ1Njc4OWFiY2RlZjAxMjQ=",
        "Basic MDEyMzQ1Njc4OWFiY2RlZjAxMjM=",
        "Basic !",
        "Basic ",
        "",
    ] {
        assert_eq!(from_afar(Some(token), "/", Some(wrong)), 401, "{wrong}");
    }
    assert_eq!(from_afar(None, "/", Some("Basic Og==")), 401, "no token opens nothing");
}

#[test]
fn local_is_a_loopback_peer_on_a_loopback_address() {
    let is_local = |bound: &str, peer: &str| server::is_local(bound.parse().unwrap(), peer.parse().unwrap());
    assert!(is_local("127.0.0.1:9464", "127.0.0.1:5"));
    assert!(is_local("[::1]:9464", "[::1]:5"));
    assert!(is_local("[::ffff:127.0.0.1]:9464", "[::ffff:127.0.0.1]:5"));
    assert!(!is_local("0.0.0.0:9464", "127.0.0.1:5"));
    assert!(!is_local("[::]:9464", "[::ffff:127.0.0.1]:5"));
    assert!(!is_local("127.0.0.1:9464", "192.168.1.5:5"));
}

async fn status(fake: &Arc<Fake>) -> Value {
    let running = start(fake, |_| {}).await;
    let (code, body) = fetch(running.address, "/status").await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn a_healthy_gateway_has_no_problems() {
    let status = status(&Fake::new()).await;
    assert_eq!(status["problems"], serde_json::json!([]));
    assert_eq!((&status["ready"], &status["cloud"]["state"]), (&true.into(), &"connected".into()));
    assert_eq!(status["cloud"]["since"], "2027-01-15T08:00:00Z");
    assert_eq!(status["autonomy_seconds"], Value::Null, "nothing comes");
}

#[tokio::test]
async fn d_a_kill_a_takeover_a_refusal_and_files_that_are_not_in_use_are_named_with_what_to_do() {
    let mut fake = Arc::into_inner(Fake::new()).unwrap();
    let figures = fake.figures.get_mut().unwrap();
    figures.start.clean = false;
    figures.clock.report.since_start = Duration::from_secs(60);
    figures.stale_files = vec![StaleFile {
        path: PathBuf::from("/etc/forebay/certs/devices.crl"),
        fault: None,
    }];
    figures.cloud_files = Some("cloud.pem cannot be read".to_owned());
    figures.restart_is_pending = true;
    figures.installed_version = Some("99.1.0".to_owned());
    fake.counted.taken_over = 3;
    fake.counted.refused = vec![("not_authorized".to_owned(), 3), ("log_full".to_owned(), 0)];
    let device = |identity: &str, refused| DeviceStatus {
        identity: identity.to_owned(),
        connections: 1,
        connects: 1,
        accepted: 0,
        refused,
        last_seen_ms: 0,
        last_end: None,
    };
    fake.devices = vec![device("calm", 0), device("loud\n", 2), device("other", 1)];
    let fake = Arc::new(fake);
    let problems = status(&fake).await["problems"].to_string();
    for words in [
        "not stopped in order before this start: a kill, a crash or a power cut. 2 records waited then, and nothing that was acked is lost",
        "another client with our client id took the cloud's connection over 3 times within a day: give each gateway its own gateway.id",
        "publishes were refused within a day: not_authorized 3; most of `loud\\\\n`; the gateway's log names the topics",
        "the program on disk (99.1.0) is another than the one that runs (",
        "/etc/forebay/certs/devices.crl has changed on disk; the running gateway reads it at the start only",
        "the files of cloud.tls cannot be used: cloud.pem cannot be read; the connection uses them as they were before",
    ] {
        assert!(problems.contains(words), "{words}\nin {problems}");
    }
    fake.figures.lock().unwrap().clock.report.since_start = Duration::from_secs(2 * 3600);
    let later = status(&fake).await["problems"].to_string();
    assert!(!later.contains("not stopped in order"), "it is told for an hour: {later}");
}

#[tokio::test]
async fn every_fault_names_itself_in_a_sentence() {
    let mut fake = Arc::into_inner(Fake::new()).unwrap();
    let figures = fake.figures.get_mut().unwrap();
    figures.check = Some(Arc::new(Findings {
        new_errors: 2,
        ..Findings::default()
    }));
    trouble(figures);
    figures.log.streams[1].waiting_bytes = 1 << 20;
    figures.certificates = vec![("0.0.0.0:8883".to_owned(), 5 * 86_400)];
    figures.tasks.restarts = vec![("canary".to_owned(), 2)];
    figures.tasks.restarted = vec!["canary".to_owned()];
    let unread = figures.front.bounds.iter_mut().find(|status| status.bound == Bound::OutputBytes);
    unread.unwrap().lasting = Some(Lasting {
        bound: Bound::OutputBytes,
        limit: 1 << 20,
        is_share: true,
        times: 2,
        last: "`board-1`".to_owned(),
    });
    figures.log.quarantined = Quarantined {
        segments: 2,
        bytes: 28 << 20,
        until: Some(1_800_000_000 + 30 * 86_400),
    };
    figures.log_lines = Losses {
        total: 3,
        untold: 3,
        lasting: true,
    };
    figures.clock.report.trust = Err(Doubt::Jumped { by_ms: 20 * 86_400_000 });
    figures.clock.last_trusted = figures.clock.last_trusted.map(|time| Timestamp {
        wall_ms: time.wall_ms + 30 * 86_400_000,
        ..time
    });
    fake.counted = Counted {
        closed: 3,
        unrouted: 7,
        refused: vec![("not_authorized".to_owned(), 3), ("log_full".to_owned(), 0)],
        unretained: vec![("max_topics".to_owned(), 4)],
        retained_unread: 1,
        handshake_faults: vec![("unknown_ca".to_owned(), 2)],
        evicted_at_max_bytes: 1,
        evicted_at_max_disk: 2,
        evicted_at_keep_free: 3,
        expired: 4,
        disk_errors: 2,
        reads_corrected: 1,
        ..Counted::default()
    };
    fake.unrouted = vec![UnroutedTopic {
        topic: "devices/d1/telemetri".to_owned(),
        count: 7,
        nearest: Some(("devices/+/telemetry".to_owned(), 1)),
    }];
    let device = |identity: &str, refused, last_end| DeviceStatus {
        identity: identity.to_owned(),
        connections: 1,
        connects: 1,
        accepted: 5,
        refused,
        last_seen_ms: 1_800_000_000_000,
        last_end,
    };
    fake.devices = vec![
        device("a", 0, None),
        device("b", 2, None),
        device("c", 0, Some((Disconnection::KeepAlive, LOOPBACK))),
    ];
    fake.ledger.delivered = 9;
    let status = status(&Arc::new(fake)).await;

    let problems: Vec<_> = status["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    for expected in [
        "1 record dropped within a day because a stream was at its max_bytes: raise it",
        "2 records dropped within a day because the log was at gateway.max_disk: raise it",
        "3 records dropped within a day because the file system was short of space: free some, or lower gateway.keep_free",
        "4 records expired within a day: older than max_age of the stream, or than the message expiry that the device set",
        "2 calls to the log's disk failed within a day; the journal has the file, the offset and the error of each",
        "1 read of the log gave wrong bytes within a day, and the right ones when repeated",
        "2 quarantined segments (28MiB) kept in the log's directory: salvage what you need of them by 2027-02-14T08:00:00Z",
        "the cloud is not connected: the name cannot be resolved; check DNS (4 times in a row); 6 records in the log",
        "the cloud closed the connection without a reason 3 times within a day",
        "takes nothing of 1 pair of route and device, for example `devices/+/t` of `d1`",
        "stream `telemetry` has 1MiB of 1MiB; at the bound its oldest records are dropped",
        "the certificate of listener 0.0.0.0:8883 expires in 5 days",
        "the task `canary` ended unasked and was started again (2 times since the start)",
        "the bytes not read yet by their peers of one identity are at their bound of 1MiB (gateway.max_memory): deliveries are dropped",
        "; 2 times, last for `board-1`",
        "3 log lines dropped since the start: stderr cannot be written",
        "the kernel has counted 2 more errors in the file system of gateway.data_dir since the start",
        "the machine's clock is not trusted: it was set 20 days forward since it was last right; until it is right nothing expires by it",
        "the last trusted time on disk, 2027-02-14T08:00:00Z, is 30 days ahead of the machine's clock",
        "7 publishes matched no route within a day and did not go to the cloud; most on `devices/d1/telemetri`, 1 letter from `devices/+/telemetry`",
        "publishes were refused within a day: not_authorized 3",
        "publishes with RETAIN were delivered but not retained within a day: max_topics 4",
        "1 subscription within a day did not get retained messages",
        "TLS handshakes failed within a day: unknown_ca 2",
    ] {
        assert!(
            problems.iter().any(|line| line.contains(expected)),
            "{expected} is not in {problems:#?}"
        );
    }
    assert_eq!(
        (&status["cloud"]["state"], &status["cloud"]["next_try"]),
        (&"backing_off".into(), &"2027-01-15T08:00:00Z".into())
    );
    let listed: Vec<_> = status["devices"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["identity"].as_str().unwrap())
        .collect();
    assert_eq!(listed, ["b", "c", "a"], "those with trouble come first");
    assert_eq!(
        status["devices"]["list"][1]["trouble"],
        "its last connection, from 127.0.0.1:0, ended with keep_alive"
    );
    assert_eq!(
        (&status["unrouted"]["topics"][0]["letters_off"], &status["ledger"]["delivered"]),
        (&1.into(), &9.into())
    );
}

#[tokio::test]
async fn signals_and_the_self_check_are_told_and_a_device_in_trouble_stands_first() {
    let mut fake = Arc::into_inner(Fake::new()).unwrap();
    let figures = fake.figures.get_mut().unwrap();
    everything(figures);
    figures.front.wrong_names = vec![("gateway.local".to_owned(), 4)];
    fake.counted.wrong_names = vec![("gateway.local".to_owned(), 4)];
    fake.watch.fields = [[("/temp".to_owned(), 9.into()), ("/tmep".to_owned(), 0.into())].into()].into();
    fake.devices = vec![DeviceStatus {
        identity: "a".to_owned(),
        connections: 1,
        connects: 1,
        accepted: 1,
        refused: 3,
        last_seen_ms: 1_799_999_990_000,
        last_end: None,
    }];
    let status = status(&Arc::new(fake)).await;
    let problems = status["problems"].to_string();
    for expected in [
        "d1 is in trouble: silent",
        "none of 10 publishes on `devices/+/t` has a number at /tmep",
        "devices dial `gateway.local`, which is not in the server certificate (4 handshakes failed); if it is a name of this gateway, make one",
        "the configuration file differs from the running configuration",
        "self-check, disk: it is too small; make it larger",
        "the revocation list in devices.crl expires in 1 h",
    ] {
        assert!(problems.contains(expected), "{expected} is not in {problems}");
    }
    let list = &status["devices"]["list"];
    assert_eq!((&list[0]["identity"], &list[1]["identity"]), (&"d1".into(), &"a".into()));
    assert_eq!(list[0]["signals"].as_array().unwrap().len(), 10);
    assert_eq!(
        (&list[1]["last_seen_seconds"], &list[1]["history"][0]["what"]),
        (&10.into(), &"keep_alive".into())
    );
    assert_eq!(
        status["deadlines"][0],
        serde_json::json!({"what": "crl", "in_seconds": 3600, "at": "2027-01-15T09:00:00Z"})
    );
    assert_eq!(
        (&status["flowing"]["state"], &status["watch"]["in_trouble"]),
        (&"idle".into(), &30.into())
    );
}

#[tokio::test]
async fn the_list_of_devices_is_bounded() {
    let mut fake = Arc::into_inner(Fake::new()).unwrap();
    let device = |number| DeviceStatus {
        identity: format!("device-{number}"),
        connections: 0,
        connects: 1,
        accepted: 0,
        refused: 0,
        last_seen_ms: 0,
        last_end: None,
    };
    fake.devices = (0..5000).map(device).collect();
    let status = status(&Arc::new(fake)).await;
    assert_eq!(
        (&status["devices"]["known"], status["devices"]["list"].as_array().unwrap().len()),
        (&5000.into(), 200)
    );
}

/// The fields in the tables of `docs/status.md`.
fn documented() -> Vec<String> {
    let page = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/status.md")).unwrap();
    let fields = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
    fields.filter(|field| !field.starts_with('/')).collect()
}

#[tokio::test]
async fn status_has_the_documented_fields_and_no_others() {
    let mut fake = Arc::into_inner(Fake::new()).unwrap();
    everything(fake.figures.get_mut().unwrap());
    trouble(fake.figures.get_mut().unwrap());
    fake.unrouted = vec![UnroutedTopic {
        topic: "t".to_owned(),
        count: 1,
        nearest: None,
    }];
    fake.devices = vec![DeviceStatus {
        identity: "a".to_owned(),
        connections: 1,
        connects: 1,
        accepted: 1,
        refused: 0,
        last_seen_ms: 1,
        last_end: None,
    }];
    let status = status(&Arc::new(fake)).await;
    let mut shown = Vec::new();
    keys("", &status, &mut shown);
    let mut documented = documented();
    documented.sort();
    shown.sort();
    assert_eq!(shown, documented, "docs/status.md describes other fields");
}

/// The paths of all fields; `[]` stands for any item of a list.
fn keys(path: &str, value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                into.push(path.clone());
                // Its keys are the names of tasks.
                if path != "tasks.restarts" {
                    keys(&path, value, into);
                }
            }
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                keys(&format!("{path}[]"), first, into);
            }
        }
        _ => {}
    }
}
