//! Who is connected, who has a session, and which of them gets a message.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{encode::Message, faults::Cut, lock, rules};

/// Deliveries waiting for one connection; more stay in the session until it reconnects.
const DELIVERIES: usize = 1024;
/// QoS 1 messages kept for one session; more are dropped, as the service's queue limit does.
const STORED: usize = 1000;

/// How the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// DISCONNECT with this code on MQTT 5, then a polite close.
    Disconnect(u8),
    Cut(Cut),
}

/// A message on its way to a subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Its key in the session's store; `None` at QoS 0.
    pub(crate) stored: Option<u64>,
    pub(crate) message: Arc<Message>,
    /// Sent on an earlier connection.
    pub(crate) again: bool,
}

/// All clients and sessions of a stand-in.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    serial: u64,
    deliveries: u64,
    clients: HashMap<String, Client>,
    sessions: HashMap<String, Session>,
}

#[derive(Debug)]
struct Client {
    serial: u64,
    end: watch::Sender<Option<End>>,
    deliveries: mpsc::Sender<Delivery>,
}

#[derive(Debug)]
struct Session {
    filters: BTreeMap<String, u8>,
    unacked: BTreeMap<u64, Arc<Message>>,
    expiry: Duration,
    left: Option<Instant>,
}

/// What a connection holds of the hub.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) serial: u64,
    pub(crate) end: watch::Receiver<Option<End>>,
    pub(crate) deliveries: mpsc::Receiver<Delivery>,
    pub(crate) session_present: bool,
    /// What an earlier connection of the session did not ack.
    pub(crate) backlog: Vec<Delivery>,
}

impl Hub {
    /// Registers a connection. An older one of the same client id is told that its session was taken over.
    pub(crate) fn attach(&self, client_id: &str, clean: bool, expiry: Duration) -> Attached {
        let mut inner = lock(&self.inner);
        inner.serial += 1;
        let serial = inner.serial;
        if let Some(older) = inner.clients.remove(client_id) {
            older.end.send_replace(Some(End::Disconnect(0x8E)));
        }
        let expired = inner
            .sessions
            .get(client_id)
            .is_some_and(|session| session.left.is_some_and(|left| left.elapsed() >= session.expiry));
        if clean || expired {
            inner.sessions.remove(client_id);
        }
        let session_present = inner.sessions.contains_key(client_id);
        let session = inner.sessions.entry(client_id.to_owned()).or_insert_with(|| Session {
            filters: BTreeMap::new(),
            unacked: BTreeMap::new(),
            expiry,
            left: None,
        });
        session.expiry = expiry;
        session.left = None;
        let again = |(key, message): (&u64, &Arc<Message>)| Delivery {
            stored: Some(*key),
            message: Arc::clone(message),
            again: true,
        };
        let backlog = session.unacked.iter().map(again).collect();
        let (end, end_receiver) = watch::channel(None);
        let (deliveries, delivery_receiver) = mpsc::channel(DELIVERIES);
        inner.clients.insert(client_id.to_owned(), Client { serial, end, deliveries });
        Attached {
            serial,
            end: end_receiver,
            deliveries: delivery_receiver,
            session_present,
            backlog,
        }
    }

    /// Unregisters a connection, unless a newer one of the same client id took its place.
    pub(crate) fn detach(&self, client_id: &str, serial: u64) {
        let mut inner = lock(&self.inner);
        if inner.clients.get(client_id).is_none_or(|client| client.serial != serial) {
            return;
        }
        inner.clients.remove(client_id);
        if let Some(session) = inner.sessions.get_mut(client_id) {
            session.left = Some(Instant::now());
            if session.expiry.is_zero() {
                inner.sessions.remove(client_id);
            }
        }
    }

    /// Adds a subscription; false when the session has `limit` others already.
    pub(crate) fn subscribe(&self, client_id: &str, filter: &str, qos: u8, limit: usize) -> bool {
        let mut inner = lock(&self.inner);
        let Some(session) = inner.sessions.get_mut(client_id) else {
            return true;
        };
        if session.filters.len() >= limit && !session.filters.contains_key(filter) {
            return false;
        }
        session.filters.insert(filter.to_owned(), qos);
        true
    }

    /// Removes a subscription; false when there was none.
    pub(crate) fn unsubscribe(&self, client_id: &str, filter: &str) -> bool {
        let mut inner = lock(&self.inner);
        inner
            .sessions
            .get_mut(client_id)
            .is_some_and(|session| session.filters.remove(filter).is_some())
    }

    /// Hands a message to every session that asked for it.
    pub(crate) fn publish(&self, message: &Arc<Message>) {
        let mut inner = lock(&self.inner);
        let Inner {
            deliveries,
            clients,
            sessions,
            ..
        } = &mut *inner;
        for (client_id, session) in sessions {
            let matching = session
                .filters
                .iter()
                .filter(|(filter, _)| rules::filter_matches(filter, &message.topic));
            let Some(granted) = matching.map(|(_, qos)| *qos).max() else {
                continue;
            };
            let stored = (granted.min(message.qos) == 1).then(|| {
                *deliveries += 1;
                *deliveries
            });
            if let Some(key) = stored {
                if session.unacked.len() >= STORED {
                    continue;
                }
                session.unacked.insert(key, Arc::clone(message));
            }
            if let Some(client) = clients.get(client_id) {
                let delivery = Delivery {
                    stored,
                    message: Arc::clone(message),
                    again: false,
                };
                // A full channel means a slow subscriber: QoS 0 is lost, QoS 1 waits for its next connection.
                if client.deliveries.try_send(delivery).is_err() {
                    tracing::debug!(client_id, "a subscriber does not keep up");
                }
            }
        }
    }

    /// Forgets a QoS 1 message its subscriber has acked.
    pub(crate) fn acked(&self, client_id: &str, stored: u64) {
        if let Some(session) = lock(&self.inner).sessions.get_mut(client_id) {
            session.unacked.remove(&stored);
        }
    }

    /// Forgets every session; connected clients keep theirs empty.
    pub(crate) fn forget_sessions(&self) {
        let mut inner = lock(&self.inner);
        let Inner { clients, sessions, .. } = &mut *inner;
        sessions.retain(|client_id, session| {
            // Expiry zero: it will not be found again after this connection either.
            session.expiry = Duration::ZERO;
            session.filters.clear();
            session.unacked.clear();
            clients.contains_key(client_id)
        });
    }

    /// Ends every connection.
    pub(crate) fn end_all(&self, end: End) {
        for client in lock(&self.inner).clients.values() {
            client.end.send_replace(Some(end));
        }
    }

    pub(crate) fn connected(&self) -> usize {
        lock(&self.inner).clients.len()
    }
}
