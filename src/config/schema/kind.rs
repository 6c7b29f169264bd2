//! The types of configuration values, their ranges, and how a value is held against them.

use std::net::SocketAddr;

use crate::config::units;
use crate::config::yaml::{Node, Origin, Value};

/// The type of a key. Limits are written as an operator would write them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A map of further keys.
    Map,
    /// A list of maps.
    List,
    /// Text.
    Text,
    /// A list of texts.
    TextList,
    /// A readable file; a relative path starts at the folder of the configuration file.
    File,
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An address with a port.
    Socket,
    /// A whole number.
    Integer {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A duration with its unit.
    Duration {
        /// The shortest.
        min: &'static str,
        /// The longest.
        max: &'static str,
    },
    /// A size with its unit.
    Bytes {
        /// The least.
        min: &'static str,
        /// The most.
        max: &'static str,
    },
    /// Bytes per second.
    Bandwidth {
        /// The least.
        min: &'static str,
        /// The most.
        max: &'static str,
    },
    /// Events per second.
    Rate,
    /// A share of the whole.
    Percent,
    /// A number, in the unit of what it is held against.
    Number,
    /// Two numbers, the lower one first.
    Range,
    /// The word `off`, or a value of the other kind.
    OffOr(&'static Kind),
}

impl Kind {
    /// The type and its range in words.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Map => "map".to_owned(),
            Self::List => "list of maps".to_owned(),
            Self::Text => "text".to_owned(),
            Self::TextList => "list of text".to_owned(),
            Self::File => "file".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Choice(words) => words.join(" or "),
            Self::Socket => "address:port".to_owned(),
            Self::Integer { min, max } => format!("whole number, {min} to {max}"),
            Self::Duration { min, max } => format!("duration, {min} to {max}"),
            Self::Bytes { min, max } => format!("size, {min} to {max}"),
            Self::Bandwidth { min, max } => format!("bandwidth, {min} to {max}"),
            Self::Rate => "rate, such as 50/s".to_owned(),
            Self::Percent => "share, 0% to 100%".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Range => "two numbers, [lowest, highest]".to_owned(),
            Self::OffOr(kind) => format!("off, or {}", kind.describe()),
        }
    }

    /// Holds a scalar or list against the type and its range. The items of maps and lists of maps are the caller's.
    ///
    /// # Errors
    /// The reason, for the operator.
    pub(in crate::config) fn check(&self, node: &Node) -> Result<(), String> {
        match self {
            Self::Map => expect(matches!(node.value, Value::Map(_)), node, "a map of keys"),
            Self::List | Self::TextList => expect(matches!(node.value, Value::List(_)), node, "a list, as in [a, b]"),
            Self::Text | Self::File => expect(is_text(node), node, "text").map_err(|reason| quote_advice(node, reason)),
            Self::Bool => {
                let ok = matches!(node.scalar().as_deref(), Some("true" | "false")) && !matches!(node.value, Value::Text(_));
                expect(ok, node, "true or false, without quotes")
            }
            Self::Range => {
                let bounds: Vec<f64> = node.items().iter().filter_map(number).collect();
                let ok = matches!(bounds[..], [lowest, highest] if lowest < highest) && node.items().len() == 2;
                expect(ok, node, "two numbers, the lower one first, as in [-40, 85]")
            }
            Self::OffOr(kind) => {
                if node.scalar().as_deref() == Some("off") {
                    return Ok(());
                }
                kind.check(node).map_err(|reason| format!("{reason}, or `off`"))
            }
            _ => {
                let Some(text) = node.scalar() else {
                    return expect(false, node, &self.describe());
                };
                self.check_text(&text)
            }
        }
    }

    fn check_text(&self, text: &str) -> Result<(), String> {
        match self {
            Self::Choice(words) if words.contains(&text) => Ok(()),
            Self::Choice(words) => Err(format!("must be one of {}", words.join(", "))),
            Self::Socket => match text.parse::<SocketAddr>() {
                Ok(_) => Ok(()),
                Err(_) => Err("must be a numeric address with a port, such as 0.0.0.0:8883 or [::]:8883".to_owned()),
            },
            Self::Integer { min, max } => match text.parse::<u64>() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(()),
                _ => Err(format!("must be a whole number from {min} to {max}")),
            },
            Self::Duration { min, max } => within(text, min, max, units::duration),
            Self::Bytes { min, max } => within(text, min, max, units::bytes),
            Self::Bandwidth { min, max } => within(text, min, max, units::bandwidth),
            Self::Rate => match units::rate(text) {
                Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(()),
                Ok(_) => Err("must be more than 0 and at most 1000000/s".to_owned()),
                Err(reason) => Err(reason),
            },
            Self::Percent => units::percent(text).map(drop),
            Self::Number => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(()),
                _ => Err("must be a number such as 1.5".to_owned()),
            },
            _ => Ok(()),
        }
    }
}

fn within<T: PartialOrd>(text: &str, min: &str, max: &str, parse: fn(&str) -> Result<T, String>) -> Result<(), String> {
    let value = parse(text)?;
    let inside = parse(min).is_ok_and(|least| value >= least) && parse(max).is_ok_and(|most| value <= most);
    if inside {
        Ok(())
    } else {
        Err(format!("must be from {min} to {max}"))
    }
}

fn number(node: &Node) -> Option<f64> {
    node.scalar()?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// On a command line nobody quotes twice: there a number is text too where text is wanted.
fn is_text(node: &Node) -> bool {
    matches!(
        (&node.value, &node.origin),
        (Value::Text(_), _) | (Value::Number(_) | Value::Bool(_), Origin::Override(_))
    )
}

fn quote_advice(node: &Node, reason: String) -> String {
    match node.value {
        Value::Null | Value::Number(_) | Value::Bool(_) => format!("{reason}; quote it"),
        Value::Map(_) => format!("{reason}; quote what has braces, as in \"{{cn}}\""),
        Value::Text(_) | Value::List(_) => reason,
    }
}

fn expect(ok: bool, node: &Node, wanted: &str) -> Result<(), String> {
    if ok {
        return Ok(());
    }
    let found = match node.value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    };
    Err(format!("must be {wanted}, not {found}"))
}
