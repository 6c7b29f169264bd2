//! Every long-lived task and thread of the process, by its name, watched.
//!
//! A task that ends unasked is a fault of ours. A *vital* one ends the process with exit code 70, so that a
//! service manager starts it anew: half a gateway acks what never arrives. One that no message needs is *started again*, and
//! that is told (`problems`, `/status`, `forebay_task_restarts_total`).

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

/// How often a part is asked whether its threads live.
const LOOK: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A task that lived so long failed for a new reason.
const STABLE: Duration = Duration::from_secs(600);
/// How often the log says what the stop waits for.
const SAY: Duration = Duration::from_secs(3);
/// What each part gets to end, however late it is.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// For how long a restart is a problem.
const RECENT: Duration = Duration::from_secs(3600);

/// All tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Cancelled when a vital task has ended unasked.
    death: CancellationToken,
    /// The first pause before a task is started again; it doubles up to [`LONGEST_PAUSE`].
    pause: Duration,
}

#[derive(Debug, Default)]
struct State {
    dead: Vec<Dead>,
    restarts: BTreeMap<&'static str, Restarts>,
}

/// A vital task that ended unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    /// Its name.
    pub(crate) task: &'static str,
    /// How it ended.
    pub(crate) how: String,
}

#[derive(Debug)]
struct Restarts {
    count: u64,
    last: Option<Instant>,
}

/// What became of the tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskFigures {
    /// The vital tasks that ended unasked; any means that the process is about to end.
    pub(crate) dead: Vec<Dead>,
    /// How often each task that may be started again was.
    pub(crate) restarts: Vec<(String, u64)>,
    /// Those of them that were within the last hour.
    pub(crate) restarted: Vec<String>,
}

/// A running task.
#[derive(Debug)]
pub(crate) struct Task {
    name: &'static str,
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl Tasks {
    /// None so far.
    pub(crate) fn new() -> Self {
        Self::with_pause(PAUSE)
    }

    fn with_pause(pause: Duration) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            death: CancellationToken::new(),
            pause,
        }))
    }

    /// Runs a task without which the gateway must end. Its end is asked for by `stop`.
    pub(crate) fn vital(&self, name: &'static str, stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) -> Task {
        let (tasks, asked) = (self.clone(), stop.clone());
        let handle = spawn(name, task);
        watched(name, stop, async move {
            let ended = handle.await;
            if !asked.is_cancelled() {
                tasks.died(name, how(&ended));
            }
        })
    }

    /// Runs a task that is started again when it ends before `stop`; `make` makes it.
    pub(crate) fn restarting<F>(&self, name: &'static str, stop: &CancellationToken, mut make: impl FnMut() -> F + Send + 'static) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.lock().restarts.insert(name, Restarts { count: 0, last: None });
        let (tasks, asked) = (self.clone(), stop.clone());
        watched(name, stop, async move {
            let mut pause = tasks.0.pause;
            loop {
                let started = Instant::now();
                let ended = spawn(name, make()).await;
                if asked.is_cancelled() {
                    return;
                }
                if started.elapsed() >= STABLE {
                    pause = tasks.0.pause;
                }
                tracing::error!(
                    task = name,
                    how = how(&ended),
                    "a task ended and is started again in {pause:?}; please report it"
                );
                tasks.restarted(name);
                if tokio::time::timeout(pause, asked.cancelled()).await.is_ok() {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        })
    }

    /// Watches threads of a part that says itself whether they live.
    pub(crate) fn threads(&self, name: &'static str, stop: &CancellationToken, is_alive: impl Fn() -> bool + Send + 'static) {
        let (tasks, asked) = (self.clone(), stop.clone());
        watched(name, stop, async move {
            while tokio::time::timeout(LOOK, asked.cancelled()).await.is_err() {
                if !is_alive() {
                    tasks.died(name, "its thread has ended".to_owned());
                    return;
                }
            }
        });
    }

    /// Notes that a vital task has ended unasked.
    pub(crate) fn died(&self, task: &'static str, how: String) {
        tracing::error!(
            task,
            how,
            "a task of the gateway ended; the gateway stops and must be started again; please report it"
        );
        self.lock().dead.push(Dead { task, how });
        self.0.death.cancel();
    }

    /// Waits until a vital task has ended unasked.
    pub(crate) async fn death(&self) {
        self.0.death.cancelled().await;
    }

    /// The vital task that ended unasked, the first if there are several.
    pub(crate) fn first_dead(&self) -> Option<Dead> {
        self.lock().dead.first().cloned()
    }

    /// What became of the tasks.
    pub(crate) fn figures(&self, now: Instant) -> TaskFigures {
        let state = self.lock();
        let is_recent = |restarts: &&Restarts| restarts.last.is_some_and(|last| now.saturating_duration_since(last) < RECENT);
        let restarted = state.restarts.iter().filter(|(_, restarts)| is_recent(restarts));
        TaskFigures {
            dead: state.dead.clone(),
            restarted: restarted.map(|(name, _)| (*name).to_owned()).collect(),
            restarts: state
                .restarts
                .iter()
                .map(|(name, restarts)| ((*name).to_owned(), restarts.count))
                .collect(),
        }
    }

    fn restarted(&self, name: &'static str) {
        if let Some(restarts) = self.lock().restarts.get_mut(name) {
            restarts.count += 1;
            restarts.last = Some(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// Asks it to end, and waits for that until `by`.
    pub(crate) async fn end(self, by: Instant) {
        self.stop.cancel();
        // What it watches has panicked or not; it has not.
        drop(wait(self.name, by, self.handle).await);
    }
}

/// Waits for a part of the gateway until `by`, and says every few seconds what is waited for. None if it did not end.
pub(crate) async fn wait<T>(what: &str, by: Instant, ended: impl Future<Output = T>) -> Option<T> {
    let mut ended = std::pin::pin!(ended);
    let by = by.max(Instant::now() + SHORTEST_WAIT);
    loop {
        let next = by.min(Instant::now() + SAY);
        if let Ok(ended) = tokio::time::timeout_at(next.into(), &mut ended).await {
            return Some(ended);
        }
        if Instant::now() >= by {
            tracing::warn!("the end of {what} is not waited for any longer");
            return None;
        }
        tracing::info!("stopping: waiting for the end of {what}");
    }
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task `{}` has ended: {}", self.task, self.how)
    }
}

fn watched(name: &'static str, stop: &CancellationToken, watch: impl Future<Output = ()> + Send + 'static) -> Task {
    Task {
        name,
        stop: stop.clone(),
        handle: tokio::spawn(watch),
    }
}

/// Runs a task in its own, so that its panic ends nothing else.
fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::select! {
            () = task => {}
            () = forebay_broker::until_panic_is_asked(name) => {}
        }
    })
}

fn how(ended: &Result<(), JoinError>) -> String {
    match ended {
        Ok(()) => "it returned".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_ends_unasked_is_named_with_its_panic() {
        let (tasks, stop) = (Tasks::with_pause(Duration::from_millis(1)), CancellationToken::new());
        let asked = tasks.vital("asked", &stop, {
            let stop = stop.clone();
            async move { stop.cancelled().await }
        });
        tasks.vital("bridge", &stop, async { panic!("for a test") });
        tasks.death().await;
        let figures = tasks.figures(Instant::now());
        let [dead] = figures.dead.as_slice() else { panic!("{figures:?}") };
        assert!(dead.task == "bridge" && dead.how.contains("for a test"), "{dead}");
        asked.end(Instant::now() + STABLE).await;
        assert_eq!(tasks.figures(Instant::now()).dead.len(), 1, "what was asked to end is not dead");
    }

    #[tokio::test]
    async fn a_task_that_merely_returns_is_dead_too_and_a_thread_that_ended() {
        let (tasks, stop) = (Tasks::with_pause(Duration::from_millis(1)), CancellationToken::new());
        tasks.vital("admin", &stop, async {});
        tasks.death().await;
        tasks.threads("watch", &stop, || false);
        let both = async {
            while tasks.figures(Instant::now()).dead.len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), both)
            .await
            .expect("the thread is missed");
        let named: Vec<_> = tasks.figures(Instant::now()).dead.iter().map(|dead| dead.task).collect();
        assert_eq!(named, ["admin", "watch"]);
    }

    #[tokio::test]
    async fn a_task_that_may_be_started_again_is_and_is_told() {
        let (tasks, stop) = (Tasks::with_pause(Duration::from_millis(1)), CancellationToken::new());
        let mut lives = 0;
        let (done, mut lived) = tokio::sync::mpsc::unbounded_channel();
        let asked = stop.clone();
        let task = tasks.restarting("canary", &stop, move || {
            lives += 1;
            let (life, done, asked) = (lives, done.clone(), asked.clone());
            async move {
                done.send(life).ok();
                assert!(life >= 3, "for a test");
                asked.cancelled().await;
            }
        });
        let restarts = |count| vec![("canary".to_owned(), count)];
        for life in 1..=3 {
            assert_eq!(lived.recv().await, Some(life));
        }
        let figures = tasks.figures(Instant::now());
        assert_eq!((figures.restarts, figures.restarted), (restarts(2), vec!["canary".to_owned()]));
        assert_eq!(figures.dead, []);
        assert_eq!(tasks.figures(Instant::now() + RECENT).restarted, Vec::<String>::new());
        task.end(Instant::now() + STABLE).await;
    }

    #[tokio::test]
    async fn what_does_not_end_is_waited_for_until_its_time_and_no_longer() {
        let by = Instant::now();
        assert_eq!(wait("a test", by, std::future::pending::<()>()).await, None);
        assert_eq!(wait("a test", by, std::future::ready(7)).await, Some(7));
    }
}
