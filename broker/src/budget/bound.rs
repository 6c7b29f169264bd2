//! The table of bounds on what a peer can leave behind: from it come the words of a refusal, the counters, the problems of
//! `/status`, the table in `docs/configuration.md`, and the memory that peers can take.

use crate::limits::{
    CONNECTION_BYTES, FILTERS_BYTES, Limits, MAX_FILTERS, MAX_MEMBERS, RETAINED_BEHIND_BYTES, RETAINED_INDEX_BYTES, SESSION_BYTES,
};

macro_rules! bounds {
    ($($(#[$doc:meta])* $variant:ident = $label:literal,)+) => {
        /// A bound on what a peer can leave behind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Bound { $($(#[$doc])* $variant,)+ }

        impl Bound {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The metric's label, stable once released.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

bounds! {
    /// Connections, those before CONNECT among them.
    Connections = "connections",
    /// Connections before CONNECT.
    Pending = "pending",
    /// Bytes of packets that have not come whole.
    InputBytes = "input_bytes",
    /// Bytes that a peer has not read yet.
    OutputBytes = "output_bytes",
    /// Bytes of the topics of aliases.
    AliasBytes = "alias_bytes",
    /// Bytes of wills.
    WillBytes = "will_bytes",
    /// Sessions, connected or not.
    Sessions = "sessions",
    /// Bytes of subscriptions and packet ids of all sessions.
    SessionBytes = "session_bytes",
    /// The same of one session.
    OneSessionBytes = "one_session_bytes",
    /// Subscriptions of a session.
    Subscriptions = "subscriptions",
    /// Distinct filters, their bytes and levels.
    Filters = "filters",
    /// Members of a shared subscription.
    Members = "members",
    /// Bytes of messages that sessions are owed at QoS 1 and 2.
    OwedBytes = "owed_bytes",
    /// QoS 2 publishes without PUBREL.
    InFlight = "in_flight",
    /// Bytes of publishes that are not committed yet.
    UncommittedBytes = "uncommitted_bytes",
    /// Bytes of publishes that wait for room in the log.
    ParkedBytes = "parked_bytes",
    /// Retained messages.
    Retained = "retained",
    /// Bytes of retained messages.
    RetainedBytes = "retained_bytes",
}

/// What a value of a bound counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
}

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Line {
    /// What is bounded, in the plural.
    pub what: &'static str,
    /// What its values count.
    pub unit: Unit,
    /// Whose share there is: an identity, a session, a connection; empty if there is none.
    pub sharer: &'static str,
    /// The bound of each of these.
    pub share: fn(&Limits) -> Option<u64>,
    /// The bound of all together; `None` if it follows from other bounds.
    pub whole: fn(&Limits) -> Option<u64>,
    /// What happens at the bound.
    pub policy: &'static str,
    /// The configuration keys that it follows from; empty if it is fixed.
    pub keys: &'static str,
    /// The most memory that it can take, in bytes.
    pub memory: fn(&Limits) -> u64,
    /// Whether reaching it costs the peer more than a wait, so that an operator is told.
    pub is_told: bool,
}

fn none(_: &Limits) -> Option<u64> {
    None
}

fn nothing(_: &Limits) -> u64 {
    0
}

impl Bound {
    /// Its line of the table.
    #[must_use]
    pub const fn line(self) -> Line {
        match self {
            Self::Connections => Line {
                what: "connections",
                unit: Unit::Count,
                sharer: "identity",
                share: none,
                whole: |limits| Some(limits.max_connections as u64),
                policy: "a further one is closed at accept; of an identity at its own bound (`access[].max_connections`) it is refused at CONNECT (0x97; on 3.1.1 code 3). A tenth more is kept for listeners with a fixed word",
                keys: "limits.max_connections, access[].max_connections",
                memory: |limits| (limits.max_connections + limits.max_connections.div_ceil(10)) as u64 * CONNECTION_BYTES as u64,
                is_told: true,
            },
            Self::Pending => Line {
                what: "connections before CONNECT",
                unit: Unit::Count,
                sharer: "address",
                share: |limits| Some(limits.pending_share() as u64),
                whole: |limits| Some(limits.max_pending as u64),
                policy: "a peer that has been silent for 5 s (10 s once it has begun) gives way to a new one, and after 1 s if its address has more than its share; 64 new ones wait, further ones are closed",
                keys: "limits.max_pending, limits.connect_timeout",
                // They are among the connections.
                memory: nothing,
                is_told: true,
            },
            Self::InputBytes => Line {
                what: "bytes of packets above 4KiB, and of TLS handshakes beyond 4KiB, that have not come whole or wait for their turn",
                unit: Unit::Bytes,
                sharer: "identity (address before CONNECT)",
                share: |limits| Some(limits.input_share()),
                whole: |limits| Some(limits.max_input_bytes as u64),
                policy: "a larger packet is not read on until there is room for all of it; meanwhile a peer that is silent for 10 s in the middle of one is closed (0x97 after CONNECT). Before CONNECT half of the whole may be taken, and the share of an address binds from a quarter on",
                keys: "gateway.max_memory",
                // Each owner may have one packet that is larger than its share. A buffer that grows has twice the room that it needs.
                memory: |limits| {
                    let owners = (limits.max_input_bytes as u64).div_ceil(limits.input_share().max(1));
                    2 * (limits.max_input_bytes as u64).max(owners * limits.max_packet as u64)
                },
                is_told: true,
            },
            Self::OutputBytes => Line {
                what: "bytes not read yet by their peers",
                unit: Unit::Bytes,
                sharer: "identity",
                share: |limits| Some(limits.output_share()),
                whole: |limits| Some(limits.max_output_bytes as u64),
                policy: "deliveries are dropped and counted; a peer that does not read its answers is not read",
                keys: "gateway.max_memory",
                // A buffer that grows has twice the room that it needs.
                memory: |limits| 2 * limits.max_output_bytes as u64,
                is_told: true,
            },
            Self::AliasBytes => Line {
                what: "bytes of topic aliases",
                unit: Unit::Bytes,
                sharer: "identity",
                share: |limits| Some(limits.alias_share()),
                whole: |limits| Some(limits.max_alias_bytes as u64),
                policy: "the connection ends (0x97), and while half of the bound is taken new connections get no aliases",
                keys: "gateway.max_memory",
                memory: |limits| limits.max_alias_bytes as u64,
                is_told: true,
            },
            Self::WillBytes => Line {
                what: "bytes of wills, of those that wait for their delay too",
                unit: Unit::Bytes,
                sharer: "identity",
                share: |limits| Some(limits.will_share()),
                whole: |limits| Some(limits.max_will_bytes as u64),
                policy: "CONNECT with a will is refused (0x97; on 3.1.1 code 3)",
                keys: "gateway.max_memory",
                memory: |limits| limits.max_will_bytes as u64,
                is_told: true,
            },
            Self::Sessions => Line {
                what: "sessions",
                unit: Unit::Count,
                sharer: "identity",
                share: |limits| Some(limits.max_sessions() as u64 / 4),
                whole: |limits| Some(limits.max_sessions() as u64),
                policy: "a session without a connection makes room, first one that has no subscription and no packet id, then the one that has been away for longest; if all are connected, CONNECT is refused (0x97; on 3.1.1 code 3). The share binds while half of the whole is taken",
                keys: "limits.max_connections",
                memory: |limits| (limits.max_sessions() * SESSION_BYTES) as u64,
                is_told: true,
            },
            Self::SessionBytes => Line {
                what: "bytes of subscriptions and packet ids, of sessions without a connection too",
                unit: Unit::Bytes,
                sharer: "identity",
                share: |limits| Some(limits.session_share()),
                whole: |limits| Some(limits.max_session_pool as u64),
                policy: "a subscription is refused (SUBACK 0x97; 0x80 on 3.1.1), a QoS 2 publish ends its connection (0x97)",
                keys: "gateway.max_memory",
                memory: |limits| limits.max_session_pool as u64,
                is_told: true,
            },
            Self::OneSessionBytes => Line {
                what: "bytes of subscriptions and packet ids",
                unit: Unit::Bytes,
                sharer: "session",
                share: |limits| Some(limits.max_session_bytes),
                whole: none,
                policy: "as for `session_bytes`",
                keys: "sessions.per_session",
                memory: nothing,
                is_told: true,
            },
            Self::Subscriptions => Line {
                what: "subscriptions",
                unit: Unit::Count,
                sharer: "session",
                share: |limits| Some(limits.max_subscriptions as u64),
                whole: none,
                policy: "a further one is refused (SUBACK 0x97; 0x80 on 3.1.1)",
                keys: "limits.max_subscriptions",
                memory: nothing,
                is_told: true,
            },
            Self::Filters => Line {
                what: "distinct filters (also 60000 nodes of their tree, and 4MiB of its levels' names)",
                unit: Unit::Count,
                sharer: "",
                share: none,
                whole: |_| Some(MAX_FILTERS as u64),
                policy: "a new filter is refused (SUBACK 0x97; 0x80 on 3.1.1)",
                keys: "",
                memory: |_| FILTERS_BYTES as u64,
                is_told: true,
            },
            Self::Members => Line {
                what: "members",
                unit: Unit::Count,
                sharer: "shared subscription",
                share: |_| Some(MAX_MEMBERS as u64),
                whole: none,
                policy: "a further one is refused (SUBACK 0x97; 0x80 on 3.1.1)",
                keys: "",
                memory: nothing,
                is_told: true,
            },
            Self::OwedBytes => Line {
                what: "bytes of messages that wait for their subscribers at QoS 1 and 2",
                unit: Unit::Bytes,
                sharer: "identity",
                share: |limits| Some(limits.owed_share()),
                whole: |limits| Some(limits.max_owed_bytes as u64),
                policy: "the oldest message that waits for the session is dropped and counted (`forebay_owed_dropped_total`); a session has at most `sessions.per_session`",
                keys: "gateway.max_memory, sessions.per_session",
                memory: |limits| limits.max_owed_bytes as u64,
                is_told: true,
            },
            Self::InFlight => Line {
                what: "QoS 2 publishes without PUBREL",
                unit: Unit::Count,
                sharer: "session",
                share: |limits| Some(u64::from(limits.max_in_flight)),
                whole: none,
                policy: "a further one ends the connection (0x93)",
                keys: "limits.max_in_flight",
                memory: nothing,
                is_told: true,
            },
            Self::UncommittedBytes => Line {
                what: "bytes of publishes not committed yet",
                unit: Unit::Bytes,
                sharer: "identity",
                share: |limits| Some(limits.uncommitted_share()),
                whole: |limits| Some(limits.max_uncommitted_bytes as u64),
                policy: "sockets are not read until some are committed; then identities take turns",
                keys: "gateway.max_memory",
                // In the buffers of the connections and in the open batch.
                memory: |limits| 2 * limits.max_uncommitted_bytes as u64,
                is_told: false,
            },
            Self::ParkedBytes => Line {
                what: "bytes of parked publishes",
                unit: Unit::Bytes,
                sharer: "",
                share: none,
                whole: |limits| Some(limits.max_parked_bytes as u64),
                policy: "connections with a parked publish are not read",
                keys: "gateway.max_memory",
                memory: |limits| limits.max_parked_bytes as u64,
                is_told: false,
            },
            Self::Retained => Line {
                what: "retained messages",
                unit: Unit::Count,
                sharer: "identity",
                share: |limits| Some(limits.max_topics as u64 / 4),
                whole: |limits| Some(limits.max_topics as u64),
                policy: "a further one is delivered and not retained; the share binds while half of the whole is taken",
                keys: "limits.max_topics",
                memory: |limits| (limits.max_topics * RETAINED_INDEX_BYTES + RETAINED_BEHIND_BYTES) as u64,
                is_told: true,
            },
            Self::RetainedBytes => Line {
                what: "bytes of retained messages",
                unit: Unit::Bytes,
                sharer: "identity",
                share: |limits| Some(limits.max_retained_bytes / 4),
                whole: |limits| Some(limits.max_retained_bytes),
                policy: "a message beyond it is delivered and not retained; the share binds while half of the whole is taken",
                keys: "sessions.max_bytes",
                // They are on disk.
                memory: nothing,
                is_told: true,
            },
        }
    }
}

impl Line {
    /// Says that the bound is reached, and what that means.
    #[must_use]
    pub fn reached(&self, limit: u64, is_share: bool) -> String {
        let whose = if is_share {
            format!("the {} of one {}", self.what, self.sharer)
        } else {
            format!("all {} together", self.what)
        };
        let keys = if self.keys.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.keys)
        };
        format!("{whose} are at their bound of {}{keys}: {}", self.unit.show(limit), self.policy)
    }
}

impl Unit {
    /// A value for a person.
    #[must_use]
    pub fn show(self, value: u64) -> String {
        let unit = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
            .into_iter()
            .find(|(unit, _)| self == Self::Bytes && value >= *unit);
        match unit {
            Some((unit, name)) if value.is_multiple_of(unit) => format!("{}{name}", value / unit),
            Some((unit, name)) => format!("{}.{}{name}", value / unit, value % unit * 10 / unit),
            None if self == Self::Bytes => format!("{value}B"),
            None => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reached_bound_says_which_whose_and_what_follows() {
        let text = Bound::OutputBytes.line().reached(1536 << 10, true);
        assert!(
            text.starts_with("the bytes not read yet by their peers of one identity are at their bound of 1.5MiB (gateway.max_memory): "),
            "{text}"
        );
        let text = Bound::Filters.line().reached(20_000, false);
        assert!(text.contains("together are at their bound of 20000: "), "{text}");
    }

    #[test]
    fn every_bound_has_a_bound_of_each_or_of_all() {
        let limits = Limits::default();
        for bound in Bound::ALL {
            let line = bound.line();
            let values = [(line.share)(&limits), (line.whole)(&limits)];
            assert!(values.iter().flatten().all(|value| *value > 0), "{bound:?}");
            assert!(values.iter().flatten().count() > 0, "{bound:?}");
            assert!(!line.policy.is_empty() && !line.policy.ends_with('.'), "{bound:?}");
        }
    }
}
