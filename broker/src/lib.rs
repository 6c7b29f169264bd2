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

pub mod codec;
mod commits;
mod connection;
mod context;
mod fanout;
mod front;
mod ingress;
mod listener;
mod local_state;
mod observe;
mod policy;
mod refusal;
mod retained;
mod session;
pub mod tls;

pub use context::Limits;
pub use front::{Config, Front, FrontError, LocalFanout, Parts, View};
pub use listener::ListenerConfig;
pub use local_state::StateError;
pub use observe::{
    Accepted, ByReason, DeviceStatus, Devices, Disconnection, Observer, Publishes, Refusal, Stats, TracedPublish, Unretained,
};
pub use policy::{
    Access, AccessRule, AccessRules, Admission, AdmitAll, Route, RouteStatus, Routes, Undeliverable, UnroutedTopic, glob, nearest,
};
