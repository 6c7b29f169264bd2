//! The device side: connections, TLS, MQTT, sessions, access rules, and the local fan-out behind them.
//!
//! # The ack contract
//!
//! 1. `listener` accepts and ends TLS in a task of the connection's own, under a deadline.
//! 2. `connection::connect` reads CONNECT, derives the identity, and commits what the session's start changes before CONNACK.
//! 3. `connection::reader` decodes; `ingress` authorises, routes and appends to the log.
//! 4. Every publish takes a place in its connection's `outbox`. A place leaves when all before it have left and its own
//!    commit is done; a failed commit is never acked.
//! 5. After the commit the batch goes to `fanout`, which feeds local subscribers at QoS 0 and is in nobody's way.
//!
//! Bounds and their policies stand in [`Limits`]. What is not in this version: QoS 1/2 towards local subscribers, `$share`,
//! passwords, websockets; clients are told so by CONNACK and SUBACK.
#![forbid(unsafe_code)]

mod access;
pub mod codec;
mod commits;
mod connection;
mod context;
mod devices;
mod dialled;
mod fanout;
mod front;
mod ingress;
mod listener;
mod matches;
mod retained;
mod routing;
mod session;
mod stats;
pub mod tls;
mod trace;
mod unrouted;
mod waiting;

pub use access::{Access, AccessRule, AccessRules, glob};
pub use context::Limits;
pub use devices::{DeviceStatus, Devices};
pub use front::{Config, Front, FrontError, LocalFanout, Parts, View};
pub use listener::ListenerConfig;
pub use matches::RouteStatus;
pub use routing::{Admission, AdmitAll, Route, Routes, Undeliverable};
pub use session::durable::StateError;
pub use stats::{Accepted, ByReason, Disconnection, Observer, Publishes, Refusal, Stats, Unretained};
pub use trace::TracedPublish;
pub use unrouted::{UnroutedTopic, nearest};
