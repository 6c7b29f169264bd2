//! MQTT topic names and filters, what the wildcards of a filter matched, and templates over both.
//!
//! # The promise
//!
//! `+`, `#` and `$` mean the same everywhere in Forebay. The front matches routes and access rules with this crate, the
//! bridge maps topics with it, and the configuration is checked by it. Sources: MQTT 3.1.1 and 5.0, section 4.7.
//!
//! A [`TopicFilter`] is valid by construction. A [`Template`] that passed [`Template::check`] for a filter can be rendered for
//! every topic that the filter matches.
//!
//! What a peer wrote is shown by [`PeerText`] and in no other way, and lines that a peer causes are written only when a
//! [`PeerLog`] says so.
//!
//! # What it is not for
//!
//! It finds no subscribers: the front has a tree for that. It knows nothing of `$share`, and it does no I/O.
//!
//! # Limits
//!
//! Topics and filters have 1 to 65,535 bytes (MQTT-4.7.3-1, MQTT-4.7.3-3). Matching takes time in proportion to the topic's
//! length and allocates nothing, whatever the peer sent. A peer's text shows 128 characters at most; a `PeerLog` lets 12 lines
//! through at once and 4 a second, and keeps 64 peers and reasons apart.
//!
//! # Example
//!
//! ```
//! use forebay_topic::{Template, TopicFilter, Values};
//!
//! let filter = TopicFilter::parse("devices/+/telemetry/#")?;
//! let target = Template::parse("dt/{gateway}/{1}/{#}")?;
//! target.check(&filter)?;
//!
//! let topic = "devices/board-1/telemetry/env";
//! let captures = filter.captures(topic).expect("the filter matches");
//! let values = Values { gateway: "plant-7", device: "board-1", topic, captures: &captures };
//! assert_eq!(target.render(&values), "dt/plant-7/board-1/env");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub use filter::{Captures, FilterError, TopicFilter};
pub use name::{TopicError, validate_name};
pub use peer_log::{PeerLog, Repeated};
pub use peer_text::{MAX_SHOWN, PeerText, is_safe, unsafe_character};
pub use template::{Field, Template, TemplateError, Values};

mod filter;
mod name;
mod peer_log;
mod peer_text;
mod template;
