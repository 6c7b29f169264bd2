//! All sessions, and the hand-over from one connection to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_topic::PeerText;
use forebay_wal::{Clock, Log, Timestamp};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::persistence::{Change, StoredSession, encode};
use super::{SessionKey, SessionState};
use crate::budget::{Budget, Charge, Exceeded, Owner};
use crate::commits::{Commits, Outcome};
use crate::local_state;

/// How often expired sessions are ended.
const SWEEP: Duration = Duration::from_secs(1);

/// All sessions of the process.
pub(crate) struct Registry {
    cells: Mutex<HashMap<SessionKey, Arc<Cell>>>,
    log: Log,
    clock: Arc<dyn Clock>,
    max_sessions: usize,
    max_expiry: Duration,
    budget: Arc<Budget>,
    shutdown: CancellationToken,
}

/// What a CONNECT asks for.
pub(crate) struct Claim {
    pub(crate) key: SessionKey,
    pub(crate) clean_start: bool,
    pub(crate) expiry_seconds: u32,
    /// Who is charged.
    pub(crate) owner: Owner,
    /// Connections of its identity at a time.
    pub(crate) max_connections: u64,
}

/// One session.
struct Cell {
    /// Locked during an attach, so that takeovers of one session come one after the other.
    attaching: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None` while a connection has the session.
    state: Option<SessionState>,
    detached: Option<Timestamp>,
    holder: Option<Holder>,
    /// Cancelled when a newer connection waits for the session.
    waiting: CancellationToken,
    /// Tells a delayed will what happens to the session.
    fate: Option<oneshot::Sender<Fate>>,
}

/// What happened to a session after its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A new connection resumed it.
    Resumed,
    /// It ended.
    Ended,
}

/// The connection that has the session, or had it last.
#[derive(Clone)]
struct Holder {
    kick: CancellationToken,
    gone: CancellationToken,
}

/// A session that a connection has, until [`Registry::detach`].
pub(crate) struct Attached {
    pub(crate) key: SessionKey,
    pub(crate) state: SessionState,
    /// Whether it existed before this connection (CONNACK's session present).
    pub(crate) present: bool,
    /// Cancelled when another connection takes the session over, and by shutdown; the connection may cancel it too.
    pub(crate) ending: CancellationToken,
    cell: Arc<Cell>,
    /// Its place among the connections of its identity.
    place: Charge,
    /// Tells who waits for the session, also if this connection's task fails.
    gone: DropGuard,
}

/// Why a connection did not get its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("{0}")]
    Connections(Exceeded),
    #[error(
        "there are as many sessions as limits.max_connections allows, 4 for each connection; sessions without a connection end at their expiry"
    )]
    TooMany,
    #[error(
        "this identity already has a quarter of the sessions that limits.max_connections allows; let its clients keep their client ids, or use a clean start"
    )]
    IdentityQuota,
    #[error("the log cannot commit the session at the moment")]
    NotCommitted,
    #[error("a newer connection of its client id came while it waited for the session; look for two clients with one client id")]
    Superseded,
    #[error("its session was not free within the deadline for CONNECT; the disk may be slow, or its last connection has much to end")]
    Late,
}

impl Registry {
    /// Starts with the stored sessions. A session whose end of connection is not in the log counts as detached now.
    pub(crate) fn new(
        log: &Log,
        stored: HashMap<SessionKey, StoredSession>,
        clock: Arc<dyn Clock>,
        max_sessions: usize,
        max_expiry: Duration,
        budget: Arc<Budget>,
        shutdown: CancellationToken,
    ) -> Self {
        let now = clock.now();
        let cells = stored
            .into_iter()
            .map(|(key, session)| (key, Arc::new(Cell::restored(session, now))))
            .collect();
        Self {
            cells: Mutex::new(cells),
            log: log.clone(),
            clock,
            max_sessions,
            max_expiry,
            budget,
            shutdown,
        }
    }

    /// Gives the session to a connection. One that has it already is ended first, and all that it appended is committed.
    /// A clean start drops the old state. A session that outlives its connection is written to the log. All changes are
    /// committed before this returns, so before the CONNACK. One connection waits for a session at a time, the newest, and no
    /// longer than until `deadline`; the commit is waited for in any case.
    ///
    /// Not cancel safe: run it to its end.
    pub(crate) async fn attach(&self, claim: Claim, deadline: Instant) -> Result<Attached, AttachError> {
        loop {
            let cell = self.cell(&claim.key)?;
            let superseded = cell.wait_as_the_newest();
            let attaching = wait(cell.attaching.lock(), &superseded, deadline).await?;
            let holder = cell.lock().holder.clone();
            if let Some(holder) = holder {
                holder.kick.cancel();
                wait(holder.gone.cancelled(), &superseded, deadline).await?;
            }
            if !self.is_current(&claim.key, &cell) {
                // The session ended with its connection; try again with a new one.
                continue;
            }
            // Only now: a connection that takes over gets the place of the one that it ends.
            let place = match self.budget.places.charge_within(claim.owner.clone(), 1, claim.max_connections) {
                Ok(place) => place,
                Err(exceeded) => {
                    if cell.lock().state.is_none() {
                        self.remove(&claim.key, &cell);
                    }
                    return Err(AttachError::Connections(exceeded));
                }
            };
            let attached = self.take(claim, &cell, place).await;
            drop(attaching);
            return attached;
        }
    }

    async fn take(&self, claim: Claim, cell: &Arc<Cell>, place: Charge) -> Result<Attached, AttachError> {
        let Claim {
            key,
            clean_start,
            expiry_seconds,
            ..
        } = claim;
        let is_over = self.is_over(cell, &self.clock.now());
        let old = cell.lock().state.take();
        let present = !clean_start && !is_over && old.as_ref().is_some_and(|old| old.expiry_seconds > 0);
        let mut changes = Vec::new();
        let mut state = SessionState::default();
        match &old {
            Some(old) if present => state = old.clone(),
            Some(old) if old.is_persistent => changes.extend(Change::removal(&key, &stored(old))),
            _ => {}
        }
        state.expiry_seconds = expiry_seconds;
        state.is_persistent |= expiry_seconds > 0;
        if state.is_persistent {
            // Also when it is to end with this connection: after a kill, the log must not have it with its old expiry.
            changes.push(Change::Session(key.clone(), expiry_seconds, None));
        }
        if let Err(error) = self.commit(&key, &changes).await {
            // Nothing was committed, so the session stays as it was.
            match old {
                Some(old) => cell.lock().state = Some(old),
                None => self.remove(&key, cell),
            }
            return Err(error);
        }
        let ending = self.shutdown.child_token();
        let gone = CancellationToken::new();
        let mut inner = cell.lock();
        inner.holder = Some(Holder {
            kick: ending.clone(),
            gone: gone.clone(),
        });
        inner.detached = None;
        if let Some(fate) = inner.fate.take() {
            // Without a delayed will, the receiver is gone.
            fate.send(if present { Fate::Resumed } else { Fate::Ended }).ok();
        }
        drop(inner);
        Ok(Attached {
            key,
            state,
            present,
            ending,
            cell: Arc::clone(cell),
            place,
            gone: gone.drop_guard(),
        })
    }

    /// Takes the session back from a connection that has ended. A session with expiry 0 ends here. The receiver is told what
    /// happens to the session.
    pub(crate) async fn detach(&self, attached: Attached) -> oneshot::Receiver<Fate> {
        let (fate, hears) = oneshot::channel();
        let Attached {
            key,
            state,
            cell,
            place,
            gone,
            ..
        } = attached;
        let now = self.clock.now();
        if state.expiry_seconds == 0 {
            if state.is_persistent {
                self.commit_or_warn(&key, &Change::removal(&key, &stored(&state))).await;
            }
            self.remove(&key, &cell);
        } else {
            self.commit_or_warn(&key, &[Change::Session(key.clone(), state.expiry_seconds, Some(now))])
                .await;
            let mut inner = cell.lock();
            inner.detached = Some(now);
            inner.state = Some(state);
            inner.fate = Some(fate);
        }
        drop(place);
        drop(gone);
        hears
    }

    /// Ends expired sessions, until shutdown.
    pub(crate) async fn sweep(&self) {
        while tokio::time::timeout(SWEEP, self.shutdown.cancelled()).await.is_err() {
            let now = self.clock.now();
            for cell in self.lock().values() {
                let mut inner = cell.lock();
                inner.detached = inner.detached.map(|detached| detached.or_since(&now));
            }
            for (key, cell) in self.expired(&now) {
                let _attaching = cell.attaching.lock().await;
                // It may have been resumed, and detached again, while others were ended.
                let state = if self.is_over(&cell, &now) {
                    cell.lock().state.take()
                } else {
                    None
                };
                if let Some(state) = state {
                    self.commit_or_warn(&key, &Change::removal(&key, &stored(&state))).await;
                    self.remove(&key, &cell);
                    if let Some(fate) = cell.lock().fate.take() {
                        fate.send(Fate::Ended).ok();
                    }
                }
            }
        }
    }

    /// Sessions, connected or not.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn expired(&self, now: &Timestamp) -> Vec<(SessionKey, Arc<Cell>)> {
        self.lock()
            .iter()
            .filter(|(_, cell)| self.is_over(cell, now))
            .map(|(key, cell)| (key.clone(), Arc::clone(cell)))
            .collect()
    }

    fn is_over(&self, cell: &Cell, now: &Timestamp) -> bool {
        let inner = cell.lock();
        let (Some(state), Some(detached)) = (&inner.state, &inner.detached) else {
            return false;
        };
        let limit = Duration::from_secs(u64::from(state.expiry_seconds)).min(self.max_expiry);
        detached.age(now).is_some_and(|age| age >= limit)
    }

    fn cell(&self, key: &SessionKey) -> Result<Arc<Cell>, AttachError> {
        let mut cells = self.lock();
        if let Some(cell) = cells.get(key) {
            return Ok(Arc::clone(cell));
        }
        if cells.len() >= self.max_sessions {
            return Err(AttachError::TooMany);
        }
        // In the second half, no identity may have more than a quarter: a device that invents client ids must not shut out others.
        if cells.len() >= self.max_sessions / 2 {
            let own = cells.keys().filter(|other| other.identity == key.identity).count();
            if own >= self.max_sessions / 4 {
                return Err(AttachError::IdentityQuota);
            }
        }
        let cell = Arc::new(Cell::default());
        cells.insert(key.clone(), Arc::clone(&cell));
        Ok(cell)
    }

    fn is_current(&self, key: &SessionKey, cell: &Arc<Cell>) -> bool {
        self.lock().get(key).is_some_and(|current| Arc::ptr_eq(current, cell))
    }

    fn remove(&self, key: &SessionKey, cell: &Arc<Cell>) {
        let mut cells = self.lock();
        if cells.get(key).is_some_and(|current| Arc::ptr_eq(current, cell)) {
            cells.remove(key);
        }
    }

    async fn commit(&self, key: &SessionKey, changes: &[Change]) -> Result<(), AttachError> {
        if changes.is_empty() {
            return Ok(());
        }
        let payload = encode(changes);
        // A producer for each call, so that sessions that start or end at the same time share a commit.
        let commits = Arc::new(Commits::default());
        let ticket = self
            .log
            .producer(Arc::clone(&commits) as _)
            .append(&[local_state::record(self.clock.now(), &key.identity, &payload)])
            .map_err(|_| AttachError::NotCommitted)?;
        match commits.wait(ticket.batch).await {
            Outcome::Committed => Ok(()),
            Outcome::Failed => Err(AttachError::NotCommitted),
        }
    }

    async fn commit_or_warn(&self, key: &SessionKey, changes: &[Change]) {
        if self.commit(key, changes).await.is_err() {
            let (identity, client_id) = (PeerText::new(&key.identity), PeerText::new(&key.client_id));
            tracing::warn!(
                ?identity,
                ?client_id,
                "the end of a session could not be committed; after a restart it may last longer than its expiry"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionKey, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            attaching: tokio::sync::Mutex::default(),
            inner: Mutex::new(Inner {
                state: None,
                detached: None,
                holder: None,
                waiting: CancellationToken::new(),
                fate: None,
            }),
        }
    }
}

impl Cell {
    /// Ends the wait of the connection that waited until now. The token is cancelled when the next one comes.
    fn wait_as_the_newest(&self) -> CancellationToken {
        let newest = CancellationToken::new();
        std::mem::replace(&mut self.lock().waiting, newest.clone()).cancel();
        newest
    }

    fn restored(session: StoredSession, now: Timestamp) -> Self {
        let state = SessionState {
            expiry_seconds: session.expiry_seconds,
            subscriptions: session.subscriptions,
            qos2: session.qos2,
            is_persistent: true,
        };
        let inner = Inner {
            state: Some(state),
            detached: Some(session.detached.unwrap_or(now)),
            holder: None,
            waiting: CancellationToken::new(),
            fate: None,
        };
        Self {
            inner: Mutex::new(inner),
            ..Self::default()
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a session is free, unless a newer connection comes or the time is over.
async fn wait<T>(free: impl Future<Output = T>, superseded: &CancellationToken, deadline: Instant) -> Result<T, AttachError> {
    tokio::select! {
        biased;
        () = superseded.cancelled() => Err(AttachError::Superseded),
        free = timeout_at(deadline, free) => free.map_err(|_| AttachError::Late),
    }
}

fn stored(state: &SessionState) -> StoredSession {
    StoredSession {
        expiry_seconds: state.expiry_seconds,
        detached: None,
        subscriptions: state.subscriptions.clone(),
        qos2: state.qos2.clone(),
    }
}
