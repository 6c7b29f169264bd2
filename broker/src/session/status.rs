//! What an operator is told of a session.

use std::sync::Arc;

/// A session, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Its device.
    pub identity: Arc<str>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// What is kept of it while no connection has it; `None` while one has.
    pub absent: Option<Absent>,
}

/// A session without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Since its connection ended, as far as that can be proved.
    pub seconds: Option<u64>,
    /// After how many seconds it ends.
    pub expiry_seconds: u32,
    /// Its filters, in order.
    pub subscriptions: Vec<String>,
    /// QoS 2 publishes that it has not released.
    pub packet_ids: usize,
}
