//! What the end-to-end tests share: a gateway as a child process, raw MQTT devices, and waiting with a deadline.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod board;
pub mod device;
pub mod disk;
pub mod gateway;
pub mod kernel_clock;
pub mod plant;
pub mod program;
pub mod prometheus;
pub mod scene;
pub mod slow_sync;
pub mod telemetry;

use std::future::Future;
use std::time::{Duration, Instant};

/// Long enough for the slowest machine; no test that passes waits for it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something; looks again every 20 ms; panics with `what` at the deadline.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, condition: impl FnMut() -> F) -> T {
    within(DEADLINE, what, condition).await
}

/// As [`eventually`], with a deadline of its own.
pub async fn within<T, F: Future<Output = Option<T>>>(deadline: Duration, what: &str, mut condition: impl FnMut() -> F) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come true within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
