//! How fast a lane is where nothing paces it. Not a gate: `cargo test --release -p forebay-bridge --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use forebay_bridge::Version;
use support::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, proves nothing"]
async fn messages_per_second_to_a_local_cloud() {
    for version in [Version::V5, Version::V311] {
        let mut rig = Rig::plain(version).await;
        rig.config.in_flight = 1000;
        rig.config.ack_timeout = std::time::Duration::from_secs(20);
        for _ in 0..1000 {
            (0..50).for_each(|device| rig.publish(&format!("d{device}"), 1));
        }
        let start = Instant::now();
        rig.start();
        rig.drained().await;
        println!("{version:?}: {:.0} messages/s", 50_000.0 / start.elapsed().as_secs_f64());
        rig.assert_whole(50_000, 0);
    }
}
