//! What the device side counts and tells of its devices, its publishes and its connections.

mod broker_topics;
mod closed_listeners;
mod devices;
mod stats;
mod traced_publish;
mod wrong_names;

pub(crate) use broker_topics::{BrokerTopics, is_broker_topic};
pub(crate) use closed_listeners::ClosedListeners;
pub(crate) use devices::Device;
pub use devices::{DeviceStatus, Devices};
pub use stats::{Accepted, ByReason, Disconnection, DroppedOwed, DroppedSession, Observer, Publishes, Refusal, Stats, Unretained};
pub(crate) use stats::{add, sub};
pub use traced_publish::TracedPublish;
pub(crate) use wrong_names::WrongNames;
