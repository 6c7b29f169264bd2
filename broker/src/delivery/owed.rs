//! One message that one session is owed.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use super::room::Waits;
use crate::codec::QoS;
use crate::fanout::Message;

/// What it counts for besides its text; what it counts for in flight is not more.
const OVERHEAD: u64 = 192;

/// A message, and how its session is to get it.
pub(crate) struct Owed {
    pub(crate) message: Arc<Message>,
    /// 1 or 2: the lower of what it was published at and what was granted.
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// The ids of the subscriptions that it matches.
    pub(crate) subscription_ids: Vec<NonZeroU32>,
    /// Since when its expiry counts.
    pub(crate) since: Instant,
}

/// A message that is owed to one member of a group, whichever that will be.
pub(crate) struct Shared {
    pub(crate) message: Arc<Message>,
    /// Since when its expiry counts.
    pub(crate) since: Instant,
}

/// The message has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expired;

impl Waits for Owed {
    fn bytes(&self) -> u64 {
        OVERHEAD + self.message.size() as u64 + self.subscription_ids.len() as u64 * 4
    }
}

impl Waits for Shared {
    fn bytes(&self) -> u64 {
        OVERHEAD + self.message.size() as u64
    }
}

impl Owed {
    /// The same for whichever member of a group gets it.
    pub(super) fn shared(&self) -> Shared {
        Shared {
            message: Arc::clone(&self.message),
            since: self.since,
        }
    }

    /// The seconds until it expires (MQTT-3.3.2-6); `Err` if they are over (MQTT-3.3.2-5).
    pub(super) fn left(&self, now: Instant) -> Result<Option<u32>, Expired> {
        let Some(expiry) = self.message.expiry else { return Ok(None) };
        let waited = now.saturating_duration_since(self.since).as_secs();
        match u64::from(expiry).checked_sub(waited) {
            // One that was published with 0 is sent if it need not wait, as at QoS 0.
            Some(0) if waited > 0 => Err(Expired),
            Some(left) => Ok(u32::try_from(left).ok()),
            None => Err(Expired),
        }
    }
}
