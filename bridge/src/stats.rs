//! What the bridge counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_wal::{Record, RecordId};

/// Distributions, reported as they happen on the lane's task; implementations must not block.
pub trait Observer: Send + Sync {
    /// A record was delivered `age` after the gateway accepted it, where that age can be proved; `late` = it was older
    /// than 30 s when it was first sent.
    fn delivered(&self, age: Duration, late: bool);

    /// A record was handed to a connection; `again` = not for the first time in this process.
    fn sent(&self, _record: &Record, _again: bool) {}

    /// What came of a record that was handed to a connection at `sent`.
    fn answered(&self, _record: &Record, _sent: Instant, _answer: Answer) {}

    /// The bridge settled a record, for the first time that anybody did.
    fn settled(&self, _id: RecordId, _fate: Fate) {}
}

/// What came of a publish to the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// PUBACK with this reason code.
    Code(u8),
    /// It was written at QoS 0: there is no answer.
    Written,
    /// The connection ended before.
    None,
}

/// What became of a record at the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The cloud acked it.
    Delivered,
    /// Its own expiry was over.
    Expired,
    /// It became a dead letter.
    Dead,
}

/// Why a connection ended or never came to be: the label of the reconnect counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ended {
    /// The name could not be resolved.
    Dns,
    /// Nothing listens there, or a firewall refuses.
    Refused,
    /// No route, reset or broken pipe.
    Network,
    /// TCP, TLS or CONNACK took too long.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// CONNACK: not authorised, bad credentials, client id refused.
    Denied,
    /// CONNACK or DISCONNECT: busy, over quota, too many connects.
    Busy,
    /// The peer closed without a word.
    PeerClosed,
    /// Somebody else connected with our client id.
    TakenOver,
    /// The cloud shuts down, moves, or closes for administrative reasons.
    ServerShutdown,
    /// A ping was not answered, or the cloud missed ours.
    KeepAlive,
    /// A publish was not acked in time.
    AckTimeout,
    /// The cloud blamed a message when it closed.
    Message,
    /// One side broke the protocol.
    Protocol,
}

impl Ended {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 14] = [
        Self::Dns,
        Self::Refused,
        Self::Network,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Denied,
        Self::Busy,
        Self::PeerClosed,
        Self::TakenOver,
        Self::ServerShutdown,
        Self::KeepAlive,
        Self::AckTimeout,
        Self::Message,
        Self::Protocol,
    ];

    /// The label's text.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Network => "network",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::PeerClosed => "peer_closed",
            Self::TakenOver => "taken_over",
            Self::ServerShutdown => "server_shutdown",
            Self::KeepAlive => "keep_alive",
            Self::AckTimeout => "ack_timeout",
            Self::Message => "message",
            Self::Protocol => "protocol",
        }
    }
}

/// The reason codes that a PUBACK may refuse with: the label of the refusal counter. Any other code counts as 0x80.
pub const REFUSAL_CODES: [u8; 8] = [0x80, 0x83, 0x87, 0x90, 0x91, 0x95, 0x97, 0x99];

/// The codes of dead letters that the bridge makes.
pub const DEAD_REASONS: [&str; 11] = [
    "no-route",
    "topic-invalid",
    "topic-too-long",
    "topic-too-deep",
    "topic-reserved",
    "payload-too-large",
    "packet-too-large",
    "topic-refused",
    "payload-refused",
    "message-refused",
    "peer-closes",
];

/// Counters since start; each rises only by what its name says.
#[derive(Debug, Default)]
pub struct Stats {
    /// Publishes handed to a connection, repeats included.
    pub sent: AtomicU64,
    /// Bytes of the PUBLISH packets of `sent`, before TLS.
    pub sent_bytes: AtomicU64,
    /// Records settled as delivered.
    pub delivered: AtomicU64,
    /// Records settled as expired by their own MQTT 5 expiry.
    pub expired: AtomicU64,
    /// Publishes sent again on the same connection because the cloud had refused them for now.
    pub retried: AtomicU64,
    /// Publishes sent again because an earlier connection of this process had written them and got no ack.
    pub replayed: AtomicU64,
    /// Publishes that the process before a restart may have sent: as many of the oldest records as it can have had in flight,
    /// so an upper bound.
    pub replayed_perhaps: AtomicU64,
    /// Records delivered that an earlier connection had also written: the cloud may have them twice.
    pub duplicates_suspected: AtomicU64,
    /// Acks for records that were settled already, for another reason.
    pub late_acks: AtomicU64,
    /// Connections that the cloud accepted.
    pub connects: AtomicU64,
    /// Bytes in both directions, TLS included, of connections and tries until the cloud accepted them or they failed.
    pub connect_bytes: AtomicU64,
    /// Probes of suspended pairs.
    pub probes: AtomicU64,
    /// Reads of the log that failed.
    pub read_errors: AtomicU64,
    ended: [AtomicU64; Ended::ALL.len()],
    refused: [AtomicU64; REFUSAL_CODES.len()],
    dead: [AtomicU64; DEAD_REASONS.len()],
}

impl Stats {
    /// Connections that ended or never came to be, by why.
    pub fn reconnects(&self) -> impl Iterator<Item = (Ended, u64)> + '_ {
        Ended::ALL
            .into_iter()
            .zip(&self.ended)
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// Refusals by reason code.
    pub fn refused(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        REFUSAL_CODES
            .into_iter()
            .zip(&self.refused)
            .map(|(code, count)| (code, count.load(Ordering::Relaxed)))
    }

    /// Dead letters by reason.
    pub fn dead(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DEAD_REASONS
            .into_iter()
            .zip(&self.dead)
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    pub(crate) fn count_ended(&self, reason: Ended) {
        if let Some(index) = Ended::ALL.iter().position(|known| *known == reason) {
            add(&self.ended[index], 1);
        }
    }

    pub(crate) fn count_refused(&self, code: u8) {
        let index = REFUSAL_CODES.iter().position(|known| *known == code);
        add(&self.refused[index.unwrap_or(0)], 1);
    }

    pub(crate) fn count_dead(&self, reason: &str) {
        if let Some(index) = DEAD_REASONS.iter().position(|known| *known == reason) {
            add(&self.dead[index], 1);
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
