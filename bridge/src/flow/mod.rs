//! How much goes to the cloud, and when: what is in flight, the rate, what is read ahead, what the cloud may have already.

pub(crate) mod in_flight;
pub(crate) mod maybe_delivered;
pub(crate) mod rate_limit;
pub(crate) mod read_ahead;
