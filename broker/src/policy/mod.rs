//! What a device may do, and where its publishes go.

mod access;
mod route_stats;
mod routes;
mod topic_bounds;
mod unrouted;

pub use access::{Access, AccessRule, AccessRules, glob};
pub(crate) use route_stats::RouteStats;
pub use route_stats::RouteStatus;
pub use routes::{Admission, AdmitAll, Route, Routes, Undeliverable};
pub(crate) use topic_bounds::{OverBound, TopicBounds};
pub(crate) use unrouted::Unrouted;
pub use unrouted::{UnroutedTopic, nearest};
