//! The configuration as a tree in which every node knows where it came from.
//!
//! serde_yaml alone decides what the text means; it gives no positions. A second, event-based parser supplies the
//! lines, which are laid beside the values node by node: where the two differ, only a line number is missing.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::lines::{Lines, Shape};
use crate::config::fault::{Fault, shorten};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum Origin {
    /// In the file, at this line.
    File(Option<usize>),
    /// In an environment variable or a flag, named as the operator wrote it.
    Override(Arc<str>),
}

/// A value and its origin.
#[derive(Clone, Debug)]
pub(in crate::config) struct Node {
    pub(in crate::config) origin: Origin,
    pub(in crate::config) value: Value,
}

/// A YAML value; mappings keep their order and their duplicates.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Value {
    Null,
    Bool(bool),
    /// The number as serde_yaml understood it, in plain decimal.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Key {
    pub(in crate::config) name: String,
    pub(in crate::config) origin: Origin,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    /// Reads a whole file.
    pub(in crate::config) fn parse_file(text: &str) -> Result<Self, Box<Fault>> {
        let mut root: Self = serde_yaml::from_str(text).map_err(|error| Box::new(syntax_fault(text, &error)))?;
        if let Some(lines) = Lines::parse(text) {
            root.place(&lines);
        }
        Ok(root)
    }

    /// Reads the value of an environment variable or a flag. A number keeps its digits as written (`007`) and
    /// `{cn}` is text and no map: nobody quotes twice on a command line.
    pub(in crate::config) fn parse_override(text: &str, origin: &Arc<str>) -> Result<Self, String> {
        let mut node: Self = serde_yaml::from_str(text).map_err(|error| advice(text, &error))?;
        match &node.value {
            Value::Number(_) => node.value = Value::Number(text.trim().to_owned()),
            Value::Map(entries) if matches!(entries.as_slice(), [(_, Self { value: Value::Null, .. })]) && !text.contains(':') => {
                node.value = Value::Text(text.trim().to_owned());
            }
            _ => {}
        }
        node.set_origin(&Origin::Override(Arc::clone(origin)));
        Ok(node)
    }

    pub(in crate::config) fn line(&self) -> Option<usize> {
        match self.origin {
            Origin::File(line) => line,
            Origin::Override(_) => None,
        }
    }

    /// The child of a mapping.
    pub(in crate::config) fn child(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The items of a list; empty for anything else.
    pub(in crate::config) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// A scalar as text, whatever YAML made of it.
    pub(in crate::config) fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(text) | Value::Text(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    fn set_origin(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.set_origin(origin)),
            Value::Map(entries) => entries.iter_mut().for_each(|(key, node)| {
                key.origin = origin.clone();
                node.set_origin(origin);
            }),
            _ => {}
        }
    }

    fn place(&mut self, lines: &Lines) {
        self.origin = Origin::File(Some(lines.line));
        match (&mut self.value, &lines.shape) {
            (Value::List(items), Shape::List(placed)) => {
                for (item, place) in items.iter_mut().zip(placed) {
                    item.place(place);
                }
            }
            (Value::Map(entries), Shape::Map(placed)) => {
                for ((key, node), (key_line, place)) in entries.iter_mut().zip(placed) {
                    key.origin = Origin::File(Some(*key_line));
                    node.place(place);
                }
            }
            // An alias: all of it stands where the alias stands.
            (_, Shape::Leaf) => self.set_origin(&Origin::File(Some(lines.line))),
            _ => {}
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) | Value::Text(text) => text.clone(),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(entries) => {
                format!(
                    "a map with {}",
                    entries.iter().map(|(key, _)| key.name.as_str()).collect::<Vec<_>>().join(", ")
                )
            }
        };
        f.write_str(&shorten(&text))
    }
}

fn syntax_fault(text: &str, error: &serde_yaml::Error) -> Fault {
    let line = error.location().map(|place| place.line());
    let value = line
        .and_then(|line| text.lines().nth(line.saturating_sub(1)))
        .map(|line| shorten(line.trim()));
    Fault {
        line,
        value: value.unwrap_or_default(),
        ..Fault::of_file(advice(text, error))
    }
}

/// The parser's message, with advice for what goes wrong most often.
fn advice(text: &str, error: &serde_yaml::Error) -> String {
    let message = error.to_string();
    let line = error
        .location()
        .and_then(|place| text.lines().nth(place.line().saturating_sub(1)))
        .unwrap_or(text);
    let lower = message.to_lowercase();
    if lower.contains("alias") || lower.contains("anchor") {
        return format!("not YAML: {message}. A bare `*` names an alias: quote it, as in \"*\"");
    }
    if line.contains('\t') {
        return format!("not YAML: {message}. There is a tab in the line: indent with spaces");
    }
    if lower.contains("did not find expected") && text.contains('#') {
        return format!("not YAML: {message}. A bare `#` begins a comment and hides what follows: quote it, as in \"devices/#\"");
    }
    format!("not YAML: {message}")
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor)?;
        Ok(Self {
            origin: Origin::File(None),
            value,
        })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain YAML value without tags")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = access.next_entry::<Node, Node>()? {
            let name = key.scalar().unwrap_or_else(|| key.to_string());
            entries.push((
                Key {
                    name,
                    origin: Origin::File(None),
                },
                node,
            ));
        }
        Ok(Value::Map(entries))
    }
}
