//! The front's own long-lived tasks, watched. One that ends before shutdown is a fault of ours, and the front ends with its name.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

/// How often a task looks whether a test wants its panic.
const LOOK: Duration = Duration::from_millis(100);

/// Running tasks by name.
#[derive(Debug, Default)]
pub(crate) struct Tasks(JoinSet<(&'static str, String)>);

impl Tasks {
    /// Watches a task.
    pub(crate) fn watch(&mut self, name: &'static str, task: JoinHandle<()>) {
        self.0.spawn(async move {
            let how = match task.await {
                Ok(()) => "it returned".to_owned(),
                Err(error) => error.to_string(),
            };
            (name, how)
        });
    }

    /// The next one that ends, and how; never if none is left. Cancel safe.
    pub(crate) async fn ended(&mut self) -> (&'static str, String) {
        match self.0.join_next().await {
            // Those that watch only wait: they do not panic.
            Some(Ok(ended)) => ended,
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    /// Waits for all, at most so long; false if some did not end.
    pub(crate) async fn join(&mut self, patience: Duration) -> bool {
        let all = async { while self.0.join_next().await.is_some() {} };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

/// Runs `task` until it ends or a test wants a panic in it; see [`until_panic_is_asked`].
pub(crate) async fn with_injected_panic(name: &'static str, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = until_panic_is_asked(name) => {}
    }
}

/// Panics when a test asks for that by [`forebay_wal::panic_if_asked`]; never ends otherwise. In a release build it does
/// nothing at all.
pub async fn until_panic_is_asked(task: &'static str) {
    while forebay_wal::may_be_asked_to_panic() {
        forebay_wal::panic_if_asked(task);
        tokio::time::sleep(LOOK).await;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_named_with_its_panic() {
        let mut tasks = Tasks::default();
        tasks.watch("listener", tokio::spawn(std::future::pending()));
        tasks.watch("checkpoint", tokio::spawn(async { panic!("for a test") }));
        let (name, how) = tasks.ended().await;
        assert!(name == "checkpoint" && how.contains("for a test"), "{name}: {how}");
        assert!(!tasks.join(Duration::from_millis(1)).await, "the listener goes on");
    }
}
