//! An undisturbed gateway: under load, with a cloud that ends its connection now and then, as AWS does.

use std::sync::Arc;
use std::time::Duration;

use forebay_aws_standin::Cut;
use tokio::time::{Instant, sleep};

use super::judge::Judge;
use super::plants::Site;
use super::support::prometheus::{Job, Prometheus, root};

/// For how long it is watched, in seconds, if the variable does not say.
const SHORT: u64 = 300;

/// What one undisturbed run was.
pub(crate) struct Calm {
    pub(crate) lasted: Duration,
    /// How long each connection to the cloud lived.
    pub(crate) life: Duration,
    pub(crate) restarts: u32,
    pub(crate) accepted: f64,
    /// CPU time of the gateway, a debug build.
    pub(crate) cpu: Duration,
}

/// How long the run is to last: `FOREBAY_UNDISTURBED=3600` for a real hour.
fn length() -> Duration {
    let seconds = std::env::var("FOREBAY_UNDISTURBED").ok();
    Duration::from_secs(seconds.map_or(SHORT, |seconds| {
        seconds
            .parse()
            .unwrap_or_else(|error| panic!("FOREBAY_UNDISTURBED={seconds}: {error}; it is a number of seconds, such as 3600"))
    }))
}

/// How long each of the cloud's connections lives: at AWS a week or two, sometimes minutes. Four minutes in an hour; a
/// short run has its three kinds of end all the same.
fn life(length: Duration) -> Duration {
    (length / 4).min(Duration::from_secs(240))
}

/// Runs it; nothing may fire from the first scrape to the last.
pub(crate) async fn raises_nothing() -> Calm {
    let lasts = length();
    let site = Site::calm().await;
    let jobs = [Job {
        name: "forebay",
        targets: vec![site.gateway.admin],
    }];
    let prometheus = Arc::new(Prometheus::start(&[root().join("dashboards/rules/forebay.yml")], &jobs).await);
    let judge = Judge::start(Arc::clone(&prometheus));
    let life = life(lasts);
    let began = Instant::now();
    let mut restarts = 0;
    while began.elapsed() + life <= lasts {
        sleep(life).await;
        restart(&site, restarts);
        restarts += 1;
        println!("{} s, {restarts} restarts of the cloud", began.elapsed().as_secs());
        judge.has_seen_nothing();
    }
    sleep((began + lasts).saturating_duration_since(Instant::now())).await;
    judge.has_seen_nothing();
    let lasted = began.elapsed();
    drop(judge);
    let accepted = site.gateway.metric("forebay_accepted_total", &[]).await;
    let cpu = site.gateway.cpu();
    let log = site.gateway.log();
    site.stop().await;
    let complaints: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(complaints.is_empty(), "an undisturbed gateway: {complaints:#?}");
    Calm {
        lasted,
        life,
        restarts,
        accepted,
        cpu,
    }
}

/// What AWS does to a connection that lived long enough: it is told to go, or cut, and the next one is accepted at once.
fn restart(site: &Site, turn: u32) {
    match turn % 3 {
        0 => site.cloud.faults().disconnect_all(0x8b),
        1 => site.cloud.faults().cut_all(Cut::Reset),
        _ => site.cloud.faults().disconnect_all(0x98),
    }
}
