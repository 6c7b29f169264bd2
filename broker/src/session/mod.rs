//! Sessions: what outlives a connection. A session belongs to an identity and a client id together, so that no device can
//! take over another's.

mod change;
mod registry;
mod status;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

pub(crate) use change::{Change, SessionId, encode};
pub(crate) use registry::{AttachError, Attached, Claim, Fate, Registry};
pub use status::{Absent, SessionStatus};
pub(crate) use stored::StoredSessions;

/// What a QoS 2 packet id is charged as.
pub(crate) const PACKET_ID_BYTES: u64 = 24;
/// What a subscription is charged as besides its filter, in its session and in the fan-out.
const SUBSCRIPTION_BYTES: u64 = 160;

/// What a subscription is charged as.
pub(crate) fn subscription_bytes(filter: &str) -> u64 {
    SUBSCRIPTION_BYTES + filter.len() as u64
}

/// Identifies a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) identity: Arc<str>,
    pub(crate) client_id: Arc<str>,
}

/// What a subscription asked for besides its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionOptions {
    /// In a session the QoS that was asked for; at the fan-out the one that is granted.
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) subscription_id: Option<u32>,
}

/// A session's state while the process runs. Its connection changes it; the registry hands it over.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionState {
    /// How long it outlives its connection, in seconds: 0 for not at all, `u32::MAX` for `sessions.max_expiry`.
    pub(crate) expiry_seconds: u32,
    pub(crate) subscriptions: BTreeMap<String, SubscriptionOptions>,
    pub(crate) qos2: BTreeSet<u16>,
    /// Whether it is in the log.
    pub(crate) is_persistent: bool,
}

impl SessionState {
    /// What its parts are charged as.
    pub(crate) fn bytes(&self) -> u64 {
        let filters = self.subscriptions.keys().map(|filter| subscription_bytes(filter));
        filters.sum::<u64>() + self.qos2.len() as u64 * PACKET_ID_BYTES
    }

    /// Whether nothing but its key is kept of it.
    fn is_empty(&self) -> bool {
        self.subscriptions.is_empty() && self.qos2.is_empty()
    }
}

impl SubscriptionOptions {
    /// The subscription's id, if it was given one.
    pub(crate) fn id(&self) -> Option<NonZeroU32> {
        self.subscription_id.and_then(NonZeroU32::new)
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let flags = self.qos & 3 | u8::from(self.no_local) << 2 | u8::from(self.retain_as_published) << 3;
        let mut out = vec![flags];
        out.extend(self.subscription_id.unwrap_or(0).to_le_bytes());
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        let id = u32::from_le_bytes(rest.try_into().ok()?);
        Some(Self {
            qos: flags & 3,
            no_local: flags & 4 != 0,
            retain_as_published: flags & 8 != 0,
            subscription_id: (id > 0).then_some(id),
        })
    }
}
