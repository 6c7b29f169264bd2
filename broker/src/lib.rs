//! The device side: connections, TLS, MQTT, sessions, access rules, and the local fan-out behind them.
//!
//! # The promise
//!
//! A publish that goes to the log is acked, by PUBACK or PUBREC, only after its record is committed. One whose commit failed
//! is never acked. The answers of a connection leave in the order of its packets. (C1 in `docs/contracts.md`.)
//!
//! Acked without a record are publishes that match no route or a local one and are not retained, and on MQTT 3.1.1 those to
//! a topic that is not allowed.
//!
//! 1. `listener` accepts and ends TLS in the connection's own task, under a deadline.
//! 2. `connection/connect` reads CONNECT, derives the identity, and commits what the session's start changes before CONNACK.
//! 3. `connection/reader` decodes; `ingress` authorises, routes and appends to the log.
//! 4. Every publish has a slot in its connection's `outbox`. A slot leaves when all before it have left and its own commit
//!    is done.
//! 5. After the commit the batch goes to `fanout`, which feeds local subscribers at QoS 0 and delays no ack.
//!
//! How a refused packet is answered, counted and logged is decided in `refusal`. Sessions and retained messages follow the
//! log's stream `local` in a checkpoint, `local_state`.
//!
//! # What it is not for
//!
//! It is a gateway's front, not a broker for applications. QoS 1 and 2 towards sessions that outlive their connection, passwords and
//! WebSocket are not in this version; clients are told so by CONNACK and SUBACK.
//!
//! # Limits
//!
//! [`Bound`] is the table of what peers can leave behind, for each and for all together; [`Budget`] keeps it. [`Limits`] has
//! what the configuration sets: `Limits::within` divides the memory (128 MiB) among connections (2000) and what is in flight.
//! Beside the table: bytes of a packet (128 KiB), bytes (1 KiB) and levels (32) of a topic or filter, seconds to
//! CONNECT (30). Fixed: 4 sessions for each connection, 32 topic aliases of a client and 16 towards it, client ids of 256 bytes,
//! identities of 128, 1 MiB of unread deliveries and 64 KiB of unread answers of a connection.
//!
//! # What it assumes of a peer
//!
//! Nothing: bytes from a socket never panic, and a peer that is silent, slow or floods is closed or not read, alone. A device
//! must send a publish again until it is acked; on MQTT 3.1.1 that is after it reconnects.
//!
//! # Example
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use forebay_broker::tls::IdentityTemplate;
//! use forebay_broker::{
//!     AccessRule, AccessRules, AdmitAll, Config, Front, Limits, ListenerConfig, LocalFanout, Observer, Parts, Route, Routes,
//! };
//! use forebay_topic::{Template, TopicFilter};
//! use forebay_wal::{Clock, Log, Options, StreamId};
//! use tokio_util::sync::CancellationToken;
//!
//! struct Unobserved;
//! impl Observer for Unobserved {
//!     fn acked(&self, _oldest: Duration, _count: u64) {}
//! }
//!
//! async fn serve(
//!     options: Options,
//!     clock: Arc<dyn Clock>,
//!     log_observer: Arc<dyn forebay_wal::Observer>,
//!     shutdown: CancellationToken,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     // The fan-out first: the log feeds it from its first commit on.
//!     let fanout = LocalFanout::start()?;
//!     let log = Log::open(options, Arc::clone(&clock), log_observer, Some(fanout.tap()))?.log;
//!     let own_topics = vec![Template::parse("devices/{device}/#")?];
//!     let config = Config {
//!         gateway: "plant-7".to_owned(),
//!         listeners: vec![ListenerConfig {
//!             bind: "127.0.0.1:1883".parse()?,
//!             tls: None,
//!             identity: IdentityTemplate::parse("{client_id}")?,
//!         }],
//!         access: AccessRules(vec![AccessRule {
//!             who: "*".to_owned(),
//!             publish: own_topics.clone(),
//!             subscribe: own_topics,
//!             deny: Vec::new(),
//!             max_connections: 4,
//!             max_packet_311: None,
//!         }]),
//!         routes: Routes::new(vec![Route {
//!             name: "telemetry".to_owned(),
//!             from: TopicFilter::parse("devices/+/telemetry/#")?,
//!             stream: Some(StreamId(0)),
//!         }]),
//!         limits: Limits::default(),
//!         state: "state.redb".into(),
//!     };
//!     let parts = Parts {
//!         log,
//!         fanout,
//!         admission: Arc::new(AdmitAll),
//!         clock,
//!         observer: Arc::new(Unobserved),
//!     };
//!     let front = Front::bind(config, parts, shutdown).await?;
//!     front.run(Duration::from_secs(10)).await?;
//!     Ok(())
//! }
//! ```
#![forbid(unsafe_code)]

pub use budget::{Bound, BoundStatus, Budget, Lasting, Line as BoundLine, Unit};
pub use front::{Config, Front, FrontError, LocalFanout, Parts, View};
pub use limits::Limits;
pub use listener::{ListenerConfig, cannot_listen};
pub use local_state::{StateError, StateReport};
pub use observe::{
    Accepted, ByReason, DeviceStatus, Devices, Disconnection, DroppedOwed, DroppedSession, Observer, Publishes, Refusal, Stats,
    TracedPublish, Unretained,
};
pub use policy::{
    Access, AccessRule, AccessRules, Admission, AdmitAll, Route, RouteStatus, Routes, Undeliverable, UnroutedTopic, glob, nearest,
};
pub use session::{Absent, SessionStatus};
#[doc(hidden)]
pub use tasks::until_panic_is_asked;

mod broker_topics;
mod budget;
pub mod codec;
mod commits;
mod connection;
mod context;
mod delivery;
mod device_threads;
mod fanout;
mod front;
mod ingress;
mod limits;
mod listener;
mod local_state;
mod observe;
mod policy;
mod refusal;
mod retained;
mod session;
mod tasks;
pub mod tls;
mod wills;
