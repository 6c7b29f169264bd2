//! MQTT topic names and filters, what the wildcards of a filter captured, and templates over both.
//!
//! The front matches routes and access rules with it, the bridge maps topics, the configuration is checked by it:
//! one meaning of `+` and `#` in the whole product. Sources: MQTT 3.1.1 and 5.0, section 4.7.
#![forbid(unsafe_code)]

mod filter;
mod name;
mod template;

pub use filter::{Captures, FilterError, TopicFilter};
pub use name::{TopicError, validate_name};
pub use template::{Field, Template, TemplateError, Values};
