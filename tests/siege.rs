//! All storms together, in a small cgroup and with few descriptors: the gateway stays up, a device is served all along, and everything
//! comes back to rest. `FOREBAY_SIEGE` is how many seconds they rage.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_storms::{Canary, Pace, Storm, Target, quantile};
use support::gateway::Gateway;
use support::plant::Plant;
use support::scene::Scene;
use support::{DEADLINE, eventually};
use tokio::task::JoinSet;

/// Bytes that the cgroup has.
const MEMORY: u64 = 256 << 20;
/// Files that the process may open.
const FILES: u64 = 256;
/// Seconds in the suite.
const SECONDS: u64 = 8;
/// Bytes of the journal per second under each storm.
const LOGGED: u64 = 10_000;
/// Publishes per second of the canary.
const RATE: f64 = 50.0;

/// A cgroup that is removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// One with this much memory, of version 1 or 2, as the machine has it. Needs root.
    fn with_memory(bytes: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("forebay-siege-{}", std::process::id());
        let is_v2 = root.join("cgroup.controllers").exists();
        let (place, limit) = if is_v2 {
            // Where it is allowed already, or may not be changed, the write below says so.
            std::fs::write(root.join("cgroup.subtree_control"), "+memory").ok();
            (root.join(name), "memory.max")
        } else {
            (root.join("memory").join(name), "memory.limit_in_bytes")
        };
        let made = std::fs::create_dir(&place).and_then(|()| std::fs::write(place.join(limit), bytes.to_string()));
        made.unwrap_or_else(|error| panic!("a cgroup at {} with {limit} (this test needs root): {error}", place.display()));
        Self(place)
    }

    /// How often a process in it was killed for its memory.
    fn kills(&self) -> u64 {
        let events = ["memory.events", "memory.oom_control"].map(|file| std::fs::read_to_string(self.0.join(file)));
        let text = events.into_iter().find_map(Result::ok).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap_or("0").parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).ok();
    }
}

/// How it is started: as the systemd unit does, or with nothing set, as in most containers.
#[derive(Clone, Copy, Debug)]
enum Start {
    Unit,
    Bare,
}

/// One siege at a time: each measures.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn gateway(plant: &Plant, cgroup: &Cgroup, how: Start) -> Gateway {
    let scene = Scene::new("siege")
        .set("gateway", "max_disk", "512MiB")
        .listener("identity: \"{client_id}\"")
        .tls_listener(plant)
        .stream("name: telemetry, max_bytes: 64MiB, when_full: drop_oldest")
        .cloud_on(1);
    let memory = match how {
        Start::Unit => "export MALLOC_ARENA_MAX=1",
        Start::Bare => "unset MALLOC_ARENA_MAX",
    };
    let enter = format!(
        "echo $$ > {}/cgroup.procs && ulimit -n {FILES} && {memory} && exec \"$0\" \"$@\"",
        cgroup.0.display()
    );
    scene.gateway().through(&["sh", "-c", &enter])
}

fn open_files(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

fn peak(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// All storms at once, for this long; each of them does something. Gives the canary's times.
async fn rage(gateway: &Gateway, canary: &mut Canary, seconds: u64) -> Vec<Duration> {
    let target = Target {
        plain: gateway.listeners[0],
        tls: gateway.listeners[1],
    };
    let mut storms = JoinSet::new();
    // Together they are more than a debug build can take.
    let paces = Storm::ALL.map(|storm| (storm, Arc::new(Pace::new(storm.modest() / 3.0))));
    for (storm, pace) in paces.clone() {
        storms.spawn(async move { storm.rage(target, &format!("storm-{storm:?}"), &pace).await });
    }
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        let sung = tokio::time::timeout(DEADLINE, canary.sing(RATE, 50)).await;
        took.extend(sung.expect("the canary is served").unwrap());
    }
    storms.shutdown().await;
    let done = paces.map(|(storm, pace)| (storm.name(), pace.done()));
    println!("in {:?}: {done:?}", began.elapsed());
    assert!(done.iter().all(|(_, events)| *events >= seconds), "a storm did nothing: {done:?}");
    took
}

/// Waits until nothing of a storm is left; gives the resident bytes.
async fn at_rest(gateway: &Gateway, files: usize) -> u64 {
    eventually("only the canary is connected", || async {
        let connected = gateway.metric("forebay_connections", &[]).await;
        let pending = gateway.metric("forebay_handshakes_pending", &[]).await;
        (connected <= 1.0 && pending == 0.0).then_some(())
    })
    .await;
    // Segments may be open that were not at first.
    eventually("the descriptors are back", || async {
        (open_files(gateway) <= files + 8).then_some(())
    })
    .await;
    gateway.resident()
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_all_storms_together_in_256_mib_and_256_descriptors_leave_the_gateway_well() {
    besieged(Start::Unit).await;
}

/// A heap with an arena for each thread must not only grow.
#[tokio::test(flavor = "multi_thread")]
async fn k28_memory_comes_back_after_storms_also_where_nothing_was_set_for_the_allocator() {
    besieged(Start::Bare).await;
}

async fn besieged(how: Start) {
    let _alone = ALONE.lock().await;
    let seconds = std::env::var("FOREBAY_SIEGE").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let plant = Plant::new(&[]);
    let cgroup = Cgroup::with_memory(MEMORY);
    let mut gateway = gateway(&plant, &cgroup, how);
    gateway.start().await;
    let pid = gateway.pid();
    let mut canary = Canary::connect(gateway.listeners[0], "canary").await.unwrap();
    let mut quiet = canary.sing(RATE, 100).await.unwrap();
    let files = open_files(&gateway);

    // What the first storms leave for good, buffers and caches, the others do not leave again.
    rage(&gateway, &mut canary, seconds.div_ceil(2)).await;
    let first = at_rest(&gateway, files).await;
    let (began, logged) = (Instant::now(), gateway.log().len() as u64);
    let mut took = rage(&gateway, &mut canary, seconds).await;
    let logged = (gateway.log().len() as u64 - logged) / began.elapsed().as_secs().max(1);
    let rest = at_rest(&gateway, files).await;
    println!(
        "canary: p50 {:?}, p99 {:?}, {:?} at the most; before the storms p50 {:?}; peak {} MiB, at rest {} MiB and then {} MiB; {logged} B/s of journal",
        quantile(&mut took, 0.5),
        quantile(&mut took, 0.99),
        quantile(&mut took, 1.0),
        quantile(&mut quiet, 0.5),
        peak(&gateway) >> 20,
        first >> 20,
        rest >> 20,
    );
    assert_eq!((gateway.pid(), cgroup.kills()), (pid, 0), "{}", gateway.log());
    assert!(peak(&gateway) <= MEMORY, "{} bytes at the peak", peak(&gateway));
    assert!(
        rest <= first + first / 4,
        "{rest} bytes at rest, and {first} after the first storms"
    );
    assert!(logged <= LOGGED, "{logged} bytes of journal per second");
    let (code, _) = eventually("the admin API answers", || gateway.get("/healthz")).await;
    assert_eq!(code, 200);
    canary.sing(RATE, 50).await.unwrap();
    drop(canary);
    assert_eq!(gateway.stop().await, 0, "{}", gateway.log());
}
