//! The fault script: everything that can go wrong between a gateway and its cloud, at the test's command.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    glob,
    hub::{End, Hub},
    lock,
    policy::Policy,
};

/// Which of a kind of packet a fault takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// None: the fault is off.
    #[default]
    None,
    /// The next so many, then none.
    Next(u64),
    /// Every k-th, counted from when it was set: `Every(3)` takes the third, the sixth, ...
    Every(u64),
    /// All while it is on.
    All,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// A polite close: what was written arrives, then FIN.
    Fin,
    /// RST, as from a crashed host or a reset by the network.
    Reset,
}

/// When a publish's connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Before it is committed: it must be sent again.
    BeforeCommit,
    /// After it is committed and before its PUBACK: exactly one duplicate.
    AfterCommit,
}

/// A step of a flapping line.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Flap {
    /// Milliseconds the cloud is away.
    pub down_ms: u64,
    /// Milliseconds it is back.
    pub up_ms: u64,
}

/// Starting or stopping the listener failed.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The stand-in was shut down.
    #[error("the stand-in has been shut down; start another")]
    Gone,
    /// The socket refused.
    #[error("the stand-in cannot bind or listen on its port again")]
    Io(#[from] std::io::Error),
}

/// What the listener is asked to do.
#[derive(Debug)]
pub(crate) enum ListenCommand {
    Stop(oneshot::Sender<std::io::Result<()>>),
    Resume(oneshot::Sender<std::io::Result<()>>),
}

/// A handle on the faults of a running stand-in. Clones act on the same one; every fault can be changed at any time.
#[derive(Clone, Debug)]
pub struct Faults {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    hub: Arc<Hub>,
    listener: mpsc::Sender<ListenCommand>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    policy: Arc<Policy>,
    refuse: Option<(u64, u8)>,
    connacks: Counter,
    after_connack: Counter,
    connack_delay: Duration,
    stalled: bool,
    pubacks: Counter,
    twice: Counter,
    answers: Vec<Answer>,
    closes: Vec<Close>,
    delay: Duration,
    group: usize,
}

/// A [`Which`] being counted off.
#[derive(Debug, Default)]
struct Counter {
    which: Which,
    seen: u64,
}

#[derive(Debug)]
struct Answer {
    topic: String,
    code: u8,
    left: Option<u64>,
}

#[derive(Debug)]
struct Close {
    left: u64,
    point: Point,
    cut: Cut,
}

/// What the script does to one CONNECT.
#[derive(Debug, Default)]
pub(crate) struct ConnectFault {
    pub(crate) refuse: Option<u8>,
    pub(crate) silent: bool,
    pub(crate) close: bool,
    pub(crate) delay: Duration,
}

/// What the script does to one publish before it is committed.
#[derive(Debug, Default)]
pub(crate) struct PublishFault {
    pub(crate) swallow: bool,
    pub(crate) answer: Option<u8>,
    pub(crate) close: Option<(Point, Cut)>,
}

/// What the script does to one PUBACK.
#[derive(Debug, Default)]
pub(crate) struct AckFault {
    pub(crate) drop: bool,
    pub(crate) twice: bool,
    pub(crate) delay: Duration,
    pub(crate) group: usize,
}

impl Faults {
    pub(crate) fn new(
        policy: Policy,
        hub: Arc<Hub>,
        listener: mpsc::Sender<ListenCommand>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let state = Mutex::new(State {
            policy: Arc::new(policy),
            ..State::default()
        });
        Self {
            inner: Arc::new(Inner {
                state,
                hub,
                listener,
                tasks,
                shutdown,
            }),
        }
    }

    /// Refuses the next `count` CONNECTs: on 5 with this CONNACK code, on 3.1.1 with it when it is 1 to 5, else by closing.
    pub fn refuse_connects(&self, count: u64, code: u8) {
        self.with(|state| state.refuse = Some((count, code)));
    }

    /// Reads these CONNECTs and never answers them.
    pub fn drop_connacks(&self, which: Which) {
        self.with(|state| state.connacks.set(which));
    }

    /// Answers these CONNECTs and closes at once: the unstable connection.
    pub fn close_after_connack(&self, which: Which) {
        self.with(|state| state.after_connack.set(which));
    }

    /// Answers CONNECTs only after `delay`; what a client sends before is a violation.
    pub fn delay_connacks(&self, delay: Duration) {
        self.with(|state| state.connack_delay = delay);
    }

    /// While on, packets are read and nothing is committed, answered or ended. What was read meanwhile stays unanswered.
    pub fn stall(&self, on: bool) {
        self.with(|state| state.stalled = on);
    }

    /// Commits these publishes and does not ack them.
    pub fn drop_pubacks(&self, which: Which) {
        self.with(|state| state.pubacks.set(which));
    }

    /// Acks these publishes twice.
    pub fn duplicate_pubacks(&self, which: Which) {
        self.with(|state| state.twice.set(which));
    }

    /// Answers publishes whose topic matches the glob with this PUBACK code, `times` of them or all. Codes from 0x80 mean
    /// not committed; on 3.1.1, which has no codes, 0x97 is silence and every other refusal the end of the connection.
    pub fn answer(&self, topic: &str, code: u8, times: Option<u64>) {
        self.with(|state| {
            state.answers.push(Answer {
                topic: topic.to_owned(),
                code,
                left: times,
            })
        });
    }

    /// Takes all [`answer`](Self::answer)s back.
    pub fn clear_answers(&self) {
        self.with(|state| state.answers.clear());
    }

    /// Denies publishes and subscriptions of a topic glob: on 5 with 0x87, on 3.1.1 by closing.
    pub fn deny(&self, topic: &str) {
        self.with(|state| Arc::make_mut(&mut state.policy).deny.push(topic.to_owned()));
    }

    /// Takes a [`deny`](Self::deny) of the same glob back.
    pub fn allow(&self, topic: &str) {
        self.with(|state| Arc::make_mut(&mut state.policy).deny.retain(|denied| denied != topic));
    }

    /// Swaps the whole policy; it holds from the next packet on.
    pub fn set_policy(&self, policy: Policy) {
        self.with(|state| state.policy = Arc::new(policy));
    }

    /// Cuts the connection of the `nth` publish from now (1 is the next).
    pub fn close_at_publish(&self, nth: u64, point: Point, cut: Cut) {
        self.with(|state| {
            state.closes.push(Close {
                left: nth.max(1),
                point,
                cut,
            })
        });
    }

    /// Sends PUBACKs only after `delay`; zero is off.
    pub fn delay_acks(&self, delay: Duration) {
        self.with(|state| state.delay = delay);
    }

    /// Sends PUBACKs in groups of `group`, each group in reverse; an incomplete group goes after 50 ms. 0 and 1 are off.
    pub fn reorder_acks(&self, group: usize) {
        self.with(|state| state.group = group);
    }

    /// Cuts every connection.
    pub fn cut_all(&self, cut: Cut) {
        self.inner.hub.end_all(End::Cut(cut));
    }

    /// Ends every connection, on 5 with this DISCONNECT.
    pub fn disconnect_all(&self, code: u8) {
        self.inner.hub.end_all(End::Disconnect(code));
    }

    /// Forgets all sessions: the next CONNECT of each client is told that none is present.
    pub fn forget_sessions(&self) {
        self.inner.hub.forget_sessions();
    }

    /// Takes the cloud away: stops listening, keeps the port, resets every connection. Connecting is refused from when this returns.
    ///
    /// # Errors
    /// When the stand-in is gone or the port cannot be kept.
    pub async fn stop_listening(&self) -> Result<(), ListenError> {
        self.command(ListenCommand::Stop).await
    }

    /// Brings the cloud back on the same port.
    ///
    /// # Errors
    /// When the stand-in is gone or listening fails.
    pub async fn resume_listening(&self) -> Result<(), ListenError> {
        self.command(ListenCommand::Resume).await
    }

    /// Runs a script of outages in the background, one step after the other. It ends with the cloud being there.
    pub fn flap(&self, steps: Vec<Flap>) {
        let faults = self.clone();
        let shutdown = self.inner.shutdown.clone();
        self.inner.tasks.spawn(async move {
            let script = async {
                for step in steps {
                    faults.stop_listening().await?;
                    tokio::time::sleep(Duration::from_millis(step.down_ms)).await;
                    faults.resume_listening().await?;
                    tokio::time::sleep(Duration::from_millis(step.up_ms)).await;
                }
                Ok::<(), ListenError>(())
            };
            if let Some(Err(error)) = shutdown.run_until_cancelled(script).await {
                tracing::error!(%error, "the flapping script ended early");
            }
        });
    }

    /// Turns every scripted fault off; the policy and the listener stay as they are.
    pub fn clear(&self) {
        self.with(|state| {
            *state = State {
                policy: Arc::clone(&state.policy),
                ..State::default()
            }
        });
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&lock(&self.inner.state).policy)
    }

    pub(crate) fn stalled(&self) -> bool {
        lock(&self.inner.state).stalled
    }

    pub(crate) fn on_connect(&self) -> ConnectFault {
        let mut state = lock(&self.inner.state);
        if let Some((left, code)) = &mut state.refuse
            && *left > 0
        {
            *left -= 1;
            return ConnectFault {
                refuse: Some(*code),
                ..ConnectFault::default()
            };
        }
        let silent = state.stalled || state.connacks.take();
        ConnectFault {
            refuse: None,
            silent,
            close: !silent && state.after_connack.take(),
            delay: state.connack_delay,
        }
    }

    pub(crate) fn on_publish(&self, topic: &str) -> PublishFault {
        let mut state = lock(&self.inner.state);
        if state.stalled {
            return PublishFault {
                swallow: true,
                ..PublishFault::default()
            };
        }
        let mut close = None;
        state.closes.retain_mut(|rule| {
            rule.left -= 1;
            if rule.left == 0 {
                close = Some((rule.point, rule.cut));
            }
            rule.left > 0
        });
        let answer = state
            .answers
            .iter_mut()
            .find(|rule| rule.left != Some(0) && glob::matches(&rule.topic, topic))
            .map(|rule| {
                rule.left = rule.left.map(|left| left - 1);
                rule.code
            });
        PublishFault {
            swallow: false,
            answer,
            close,
        }
    }

    pub(crate) fn on_puback(&self) -> AckFault {
        let mut state = lock(&self.inner.state);
        AckFault {
            drop: state.pubacks.take(),
            twice: state.twice.take(),
            delay: state.delay,
            group: state.group,
        }
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.inner.state));
    }

    async fn command(&self, make: impl FnOnce(oneshot::Sender<std::io::Result<()>>) -> ListenCommand) -> Result<(), ListenError> {
        let (done, answer) = oneshot::channel();
        self.inner.listener.send(make(done)).await.map_err(|_| ListenError::Gone)?;
        Ok(answer.await.map_err(|_| ListenError::Gone)??)
    }
}

impl Counter {
    fn set(&mut self, which: Which) {
        *self = Self { which, seen: 0 };
    }

    fn take(&mut self) -> bool {
        self.seen += 1;
        match &mut self.which {
            Which::None => false,
            Which::Next(0) => false,
            Which::Next(left) => {
                *left -= 1;
                true
            }
            Which::Every(k) => *k > 0 && self.seen.is_multiple_of(*k),
            Which::All => true,
        }
    }
}
