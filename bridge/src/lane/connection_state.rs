//! What belongs to one connection and dies with it.

use tokio::time::Instant;

use crate::flow::in_flight::InFlight;
use crate::link::Terms;
use crate::link::failure::Failure;
use crate::message::Publish;
use crate::message::item::Item;

/// An accepted connection: what it has sent, and how it stands.
pub(crate) struct ConnectionState {
    pub(crate) in_flight: InFlight<Item>,
    pub(crate) terms: Terms,
    pub(crate) connected_at: Instant,
    pub(crate) staged: Option<Staged>,
    pub(crate) last_ack: Instant,
    /// Something went at QoS 0, so that a record in flight need not be why the peer closes.
    pub(crate) sent_unacked: bool,
    /// When the shutdown stops waiting for acks.
    pub(crate) stop_at: Option<Instant>,
    pub(crate) disconnecting: bool,
    pub(crate) stalled: bool,
}

/// How a connection ended.
pub(crate) enum End {
    Shutdown,
    Failed(Failure),
}

impl ConnectionState {
    pub(crate) const fn is_stopping(&self) -> bool {
        self.stop_at.is_some()
    }
}

/// The next publish, waiting for its turn in the pace.
pub(crate) struct Staged {
    pub(crate) item: Item,
    pub(crate) publish: Publish,
    /// A waiting device's refused record.
    pub(crate) retry: bool,
    /// From before a restart, and perhaps sent by the process that ended then.
    pub(crate) maybe_sent: bool,
}
