//! All sessions, and the hand-over from one connection to the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_topic::PeerText;
use forebay_wal::{Clock, Log, Timestamp};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::change::{Change, SessionId, encode_parts};
use super::status::{Absent, SessionStatus};
use super::stored::StoredSession;
use super::{SessionKey, SessionState};
use crate::budget::{Bound, Budget, Charge, Exceeded, Owner};
use crate::commits::{Commits, Outcome};
use crate::limits::Limits;
use crate::local_state;
use crate::observe::{DroppedSession, Stats};

/// How often expired sessions are ended.
const SWEEP: Duration = Duration::from_secs(1);

/// All sessions of the process.
pub(crate) struct Registry {
    cells: Mutex<HashMap<SessionKey, Arc<Cell>>>,
    log: Log,
    clock: Arc<dyn Clock>,
    /// The last number that was given to a session.
    last_number: AtomicU32,
    max_sessions: usize,
    max_session_bytes: u64,
    max_expiry: Duration,
    budget: Arc<Budget>,
    stats: Arc<Stats>,
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
    id: SessionId,
    /// Locked during an attach, so that takeovers of one session come one after the other.
    attaching: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None` while a connection has the session.
    state: Option<SessionState>,
    /// What the state is charged as, while it is here.
    bytes: Option<Charge>,
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
    /// The operator drops the session.
    is_dropped: Arc<AtomicBool>,
}

/// Since when a session is so that it may make room; `None` if it is not.
type Since = fn(&Cell) -> Option<(u64, u64)>;

/// A session that a connection has, until [`Registry::detach`].
pub(crate) struct Attached {
    pub(crate) id: SessionId,
    pub(crate) state: SessionState,
    /// Whether it existed before this connection (CONNACK's session present).
    pub(crate) present: bool,
    /// Cancelled when another connection takes the session over, and by shutdown; the connection may cancel it too.
    pub(crate) ending: CancellationToken,
    is_dropped: Arc<AtomicBool>,
    cell: Arc<Cell>,
    /// Its place among the connections of its identity.
    place: Charge,
    /// What its state is charged as.
    bytes: Charge,
    max_bytes: u64,
    /// Tells who waits for the session, also if this connection's task fails.
    gone: DropGuard,
}

/// Why a connection did not get its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("{0}")]
    OverBound(Exceeded),
    #[error("the log cannot commit the session at the moment")]
    NotCommitted,
    #[error("a newer connection of its client id came while it waited for the session; look for two clients with one client id")]
    Superseded,
    #[error("its session was not free within the deadline for CONNECT; the disk may be slow, or its last connection has much to end")]
    Late,
}

impl Registry {
    /// Starts with the stored sessions and the last number of one. A session whose end of connection is not in the log counts
    /// as detached now.
    pub(crate) fn new(
        log: &Log,
        (stored, last_number): (Vec<StoredSession>, u32),
        clock: Arc<dyn Clock>,
        limits: &Limits,
        (budget, stats): (Arc<Budget>, Arc<Stats>),
        shutdown: CancellationToken,
    ) -> Self {
        let now = clock.now();
        let cells = stored
            .into_iter()
            .map(|session| (session.id.key.clone(), Arc::new(Cell::restored(session, now))))
            .collect();
        Self {
            cells: Mutex::new(cells),
            log: log.clone(),
            clock,
            last_number: AtomicU32::new(last_number),
            max_sessions: limits.max_sessions(),
            max_session_bytes: limits.max_session_bytes,
            max_expiry: limits.max_session_expiry,
            budget,
            stats,
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
            let cell = self.cell_or_room(&claim).await?;
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
                    return Err(AttachError::OverBound(exceeded));
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
            owner,
            ..
        } = claim;
        let id = &cell.id;
        let is_over = self.is_over(cell, &self.clock.now());
        let (old, mut bytes) = {
            let mut inner = cell.lock();
            (inner.state.take(), inner.bytes.take())
        };
        let present = !clean_start && !is_over && old.as_ref().is_some_and(|old| old.expiry_seconds > 0);
        let mut changes = Vec::new();
        let mut state = SessionState::default();
        match &old {
            Some(old) if present => state = old.clone(),
            Some(old) if old.is_persistent => changes.extend(removal(id, old)),
            _ => {}
        }
        state.expiry_seconds = expiry_seconds;
        state.is_persistent |= expiry_seconds > 0;
        if state.is_persistent {
            // Also when it is to end with this connection: after a kill, the log must not have it with its old expiry.
            changes.push(Change::Session(id.clone(), expiry_seconds, None));
        }
        if let Err(error) = self.commit(&key, &changes).await {
            // Nothing was committed, so the session stays as it was.
            match old {
                Some(old) => {
                    let mut inner = cell.lock();
                    inner.state = Some(old);
                    inner.bytes = bytes;
                }
                None => self.remove(&key, cell),
            }
            return Err(error);
        }
        if !present {
            bytes = None;
        }
        let bytes = bytes.unwrap_or_else(|| self.budget.session_bytes.open(owner));
        let ending = self.shutdown.child_token();
        let gone = CancellationToken::new();
        let is_dropped = Arc::<AtomicBool>::default();
        let mut inner = cell.lock();
        inner.holder = Some(Holder {
            kick: ending.clone(),
            gone: gone.clone(),
            is_dropped: Arc::clone(&is_dropped),
        });
        inner.detached = None;
        if let Some(fate) = inner.fate.take() {
            // Without a delayed will, the receiver is gone.
            fate.send(if present { Fate::Resumed } else { Fate::Ended }).ok();
        }
        drop(inner);
        Ok(Attached {
            id: id.clone(),
            state,
            present,
            ending,
            is_dropped,
            cell: Arc::clone(cell),
            place,
            bytes,
            max_bytes: self.max_session_bytes,
            gone: gone.drop_guard(),
        })
    }

    /// Takes the session back from a connection that has ended. A session with expiry 0 ends here. The receiver is told what
    /// happens to the session.
    pub(crate) async fn detach(&self, attached: Attached) -> oneshot::Receiver<Fate> {
        let (fate, hears) = oneshot::channel();
        let Attached {
            id,
            state,
            cell,
            place,
            bytes,
            gone,
            ..
        } = attached;
        let key = &id.key;
        let now = self.clock.now();
        if state.expiry_seconds == 0 {
            if state.is_persistent {
                self.commit_or_warn(key, &removal(&id, &state)).await;
            }
            self.remove(key, &cell);
        } else {
            self.commit_or_warn(key, &[Change::Session(id.clone(), state.expiry_seconds, Some(now))])
                .await;
            let mut inner = cell.lock();
            inner.detached = Some(now);
            inner.state = Some(state);
            inner.bytes = Some(bytes);
            inner.fate = Some(fate);
        }
        drop(place);
        drop(gone);
        hears
    }

    /// For a session without a connection: its expiry in seconds, and a receiver that is told what happens to it.
    pub(crate) fn fate_of(&self, key: &SessionKey) -> Option<(u32, oneshot::Receiver<Fate>)> {
        let cell = self.lock().get(key).map(Arc::clone)?;
        let mut inner = cell.lock();
        let expiry = inner.state.as_ref()?.expiry_seconds;
        let (fate, hears) = oneshot::channel();
        inner.fate = Some(fate);
        Some((expiry, hears))
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
                if self.is_over(&cell, &now) {
                    self.end(&key, &cell).await;
                }
            }
        }
    }

    /// Ends a session that no connection has. Its attach is locked.
    async fn end(&self, key: &SessionKey, cell: &Arc<Cell>) {
        let (state, bytes) = {
            let mut inner = cell.lock();
            (inner.state.take(), inner.bytes.take())
        };
        let Some(state) = state else { return };
        self.commit_or_warn(key, &removal(&cell.id, &state)).await;
        drop(bytes);
        self.remove(key, cell);
        if let Some(fate) = cell.lock().fate.take() {
            fate.send(Fate::Ended).ok();
        }
    }

    /// The session's cell. At a bound a session without a connection makes room for it: an empty one, or else the one that has been
    /// without for longest.
    async fn cell_or_room(&self, claim: &Claim) -> Result<Arc<Cell>, AttachError> {
        loop {
            let exceeded = match self.cell(claim) {
                Ok(cell) => return Ok(cell),
                Err(exceeded) => exceeded,
            };
            let own = exceeded.is_share.then_some(&*claim.key.identity);
            let (found, since, reason): (_, Since, _) = match self.longest(own, Cell::empty_since) {
                Some(empty) => (Some(empty), Cell::empty_since, DroppedSession::MadeRoom),
                None => (
                    self.longest(own, Cell::absent_since),
                    Cell::absent_since,
                    DroppedSession::LongestGone,
                ),
            };
            if reason == DroppedSession::LongestGone {
                // Somebody loses something.
                self.budget.note(exceeded, &claim.owner);
            }
            let Some((key, cell)) = found else {
                return Err(AttachError::OverBound(exceeded));
            };
            let _attaching = cell.attaching.lock().await;
            // It may have been resumed, and may have got something, meanwhile.
            if since(&cell).is_some() {
                self.stats.drop_session(reason);
                self.end(&key, &cell).await;
            }
        }
    }

    /// Of the sessions of which `since` tells a time, of one identity or of all, the one with the earliest.
    fn longest(&self, identity: Option<&str>, since: impl Fn(&Cell) -> Option<(u64, u64)>) -> Option<(SessionKey, Arc<Cell>)> {
        let cells = self.lock();
        let own = cells
            .iter()
            .filter(|(key, _)| identity.is_none_or(|identity| *key.identity == *identity));
        own.filter_map(|(key, cell)| Some((since(cell)?, key, cell)))
            .min_by_key(|(since, ..)| *since)
            .map(|(_, key, cell)| (key.clone(), Arc::clone(cell)))
    }

    /// Ends a session, and its connection first if it has one; false if there is none.
    pub(crate) async fn drop_one(&self, key: &SessionKey) -> bool {
        let Some(cell) = self.lock().get(key).map(Arc::clone) else {
            return false;
        };
        let _attaching = cell.attaching.lock().await;
        let holder = cell.lock().holder.clone();
        if let Some(holder) = holder {
            holder.is_dropped.store(true, Ordering::Release);
            holder.kick.cancel();
            holder.gone.cancelled().await;
        }
        // One that ends with its connection has ended.
        if self.is_current(key, &cell) {
            self.end(key, &cell).await;
        }
        self.stats.drop_session(DroppedSession::Operator);
        true
    }

    /// All sessions, or the one with this key, in order.
    pub(crate) fn statuses(&self, only: Option<&SessionKey>) -> Vec<SessionStatus> {
        let now = self.clock.now();
        let mut cells: Vec<_> = {
            let cells = self.lock();
            match only {
                Some(key) => cells.get(key).map(Arc::clone).into_iter().collect(),
                None => cells.values().map(Arc::clone).collect(),
            }
        };
        cells.sort_unstable_by(|one, other| one.id.key.cmp(&other.id.key));
        cells.iter().map(|cell| cell.status(&now)).collect()
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

    fn cell(&self, claim: &Claim) -> Result<Arc<Cell>, Exceeded> {
        let key = &claim.key;
        let mut cells = self.lock();
        if let Some(cell) = cells.get(key) {
            return Ok(Arc::clone(cell));
        }
        let is_fixed_word = claim.owner == Owner::FixedWord;
        let reserve = if is_fixed_word { self.max_sessions.div_ceil(10) } else { 0 };
        if cells.len() >= self.max_sessions + reserve {
            return Err(Exceeded::whole(Bound::Sessions, self.max_sessions as u64));
        }
        // In the second half, no identity may have more than a quarter: a device that invents client ids must not shut out others.
        if cells.len() >= self.max_sessions / 2 && !is_fixed_word {
            let own = cells.keys().filter(|other| other.identity == key.identity).count();
            if own >= self.max_sessions / 4 {
                return Err(Exceeded::share(Bound::Sessions, self.max_sessions as u64 / 4));
            }
        }
        let number = self.last_number.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let cell = Arc::new(Cell::new(SessionId {
            key: key.clone(),
            number,
            is_old: false,
        }));
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

    /// Commits the changes in one record, or in several one after the other if they are too large for it.
    async fn commit(&self, key: &SessionKey, changes: &[Change]) -> Result<(), AttachError> {
        if changes.is_empty() {
            return Ok(());
        }
        for payload in encode_parts(changes) {
            // A producer for each call, so that sessions that start or end at the same time share a commit.
            let commits = Arc::new(Commits::default());
            let ticket = self
                .log
                .producer(Arc::clone(&commits) as _)
                .append(&[local_state::record(self.clock.now(), &key.identity, &payload)])
                .map_err(|_| AttachError::NotCommitted)?;
            if commits.wait(ticket.batch).await == Outcome::Failed {
                return Err(AttachError::NotCommitted);
            }
        }
        Ok(())
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

impl Attached {
    /// Whether the connection ends because the operator drops the session.
    pub(crate) fn is_dropped(&self) -> bool {
        self.is_dropped.load(Ordering::Acquire)
    }

    /// Charges a new part of the session.
    ///
    /// # Errors
    /// The bound that it would exceed: of this session, of its identity, or of all together.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), Exceeded> {
        if self.bytes.amount() + bytes > self.max_bytes {
            let exceeded = Exceeded::share(Bound::OneSessionBytes, self.max_bytes);
            self.bytes.note(exceeded);
            return Err(exceeded);
        }
        self.bytes.grow(bytes)
    }

    /// Charges what the state has: parts that were charged may not have been added, and others are gone.
    pub(crate) fn settle(&mut self) {
        let (charged, has) = (self.bytes.amount(), self.state.bytes());
        self.bytes.shrink(charged.saturating_sub(has));
        self.bytes.force(has.saturating_sub(charged));
    }
}

impl Cell {
    fn new(id: SessionId) -> Self {
        Self {
            id,
            attaching: tokio::sync::Mutex::default(),
            inner: Mutex::new(Inner {
                state: None,
                bytes: None,
                detached: None,
                holder: None,
                waiting: CancellationToken::new(),
                fate: None,
            }),
        }
    }

    /// Ends the wait of the connection that waited until now. The token is cancelled when the next one comes.
    fn wait_as_the_newest(&self) -> CancellationToken {
        let newest = CancellationToken::new();
        std::mem::replace(&mut self.lock().waiting, newest.clone()).cancel();
        newest
    }

    fn restored(session: StoredSession, now: Timestamp) -> Self {
        let cell = Self::new(session.id);
        let state = SessionState {
            expiry_seconds: session.expiry_seconds,
            subscriptions: session.subscriptions,
            qos2: session.qos2,
            is_persistent: true,
        };
        let mut inner = cell.lock();
        inner.state = Some(state);
        inner.bytes = Some(session.bytes);
        inner.detached = Some(session.detached.unwrap_or(now));
        drop(inner);
        cell
    }

    fn status(&self, now: &Timestamp) -> SessionStatus {
        let inner = self.lock();
        let absent = inner.state.as_ref().map(|state| Absent {
            seconds: inner.detached.and_then(|detached| detached.age(now)).map(|age| age.as_secs()),
            expiry_seconds: state.expiry_seconds,
            subscriptions: state.subscriptions.keys().cloned().collect(),
            packet_ids: state.qos2.len(),
        });
        SessionStatus {
            identity: Arc::clone(&self.id.key.identity),
            client_id: Arc::clone(&self.id.key.client_id),
            absent,
        }
    }

    /// Since when no connection has the session: the time, for an order among sessions.
    fn absent_since(&self) -> Option<(u64, u64)> {
        self.since(|_| true)
    }

    /// The same, if it is empty too.
    fn empty_since(&self) -> Option<(u64, u64)> {
        self.since(SessionState::is_empty)
    }

    fn since(&self, is_one: impl Fn(&SessionState) -> bool) -> Option<(u64, u64)> {
        let inner = self.lock();
        let detached = inner.detached.filter(|_| inner.state.as_ref().is_some_and(is_one))?;
        Some((detached.wall_ms, detached.monotonic_ms))
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

fn removal(id: &SessionId, state: &SessionState) -> Vec<Change> {
    Change::removal(id, state.subscriptions.keys(), state.qos2.iter())
}
