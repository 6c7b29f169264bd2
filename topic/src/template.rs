//! Templates such as `dt/{gateway}/{device}/{#}`.

use std::fmt;

use crate::{Captures, TopicFilter};

/// One placeholder of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `{gateway}`: the gateway's id.
    Gateway,
    /// `{device}`: the publisher's identity, never read from the topic.
    Device,
    /// `{topic}`: the whole topic.
    Topic,
    /// `{1}`, `{2}`, ...: what that `+` of the filter matched.
    Level(usize),
    /// `{#}`: what the filter's `#` matched.
    Tail,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A `{` without its `}`.
    #[error("`{{` is never closed")]
    Unclosed,
    /// A placeholder that does not exist.
    #[error("`{{{0}}}` is not a placeholder; known placeholders: {{gateway}}, {{device}}, {{topic}}, {{1}}, {{2}} and so on, and {{#}}")]
    Unknown(String),
    /// `{n}` for a filter with fewer `+`.
    #[error("`{{{wanted}}}` needs {wanted} `+` in the filter, which has {available}")]
    NoSuchLevel {
        /// The number in the template.
        wanted: usize,
        /// How many `+` the filter has.
        available: usize,
    },
    /// `{#}` for a filter without `#`.
    #[error("`{{#}}` needs a `#` in the filter, which has none")]
    NoTail,
}

/// The values of the placeholders.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The gateway's id.
    pub gateway: &'a str,
    /// The publisher's identity.
    pub device: &'a str,
    /// The whole topic.
    pub topic: &'a str,
    /// What the filter's wildcards matched.
    pub captures: &'a Captures<'a>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// An unclosed brace or an unknown placeholder.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Literal(rest[..open].to_owned()));
            }
            let inner = &rest[open + 1..];
            let close = inner.find('}').ok_or(TemplateError::Unclosed)?;
            parts.push(Part::Field(field(&inner[..close])?));
            rest = &inner[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// Checks that `filter` can fill every placeholder.
    ///
    /// # Errors
    /// The first placeholder that it cannot fill.
    pub fn check(&self, filter: &TopicFilter) -> Result<(), TemplateError> {
        for field in self.fields() {
            match field {
                Field::Level(wanted) if wanted > filter.plus_count() => {
                    return Err(TemplateError::NoSuchLevel {
                        wanted,
                        available: filter.plus_count(),
                    });
                }
                Field::Tail if !filter.has_tail() => return Err(TemplateError::NoTail),
                _ => {}
            }
        }
        Ok(())
    }

    /// The placeholders in order.
    pub fn fields(&self) -> impl Iterator<Item = Field> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(*field),
            Part::Literal(_) => None,
        })
    }

    /// Fills the placeholders. An empty `{#}` at the end is left out with the separator before it: where
    /// `devices/#` matches its parent `devices`, the result is `dt/devices` and not `dt/devices/`.
    #[must_use]
    pub fn render(&self, values: &Values<'_>) -> String {
        let mut out = String::with_capacity(self.text.len() + values.topic.len());
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Field(Field::Gateway) => out.push_str(values.gateway),
                Part::Field(Field::Device) => out.push_str(values.device),
                Part::Field(Field::Topic) => out.push_str(values.topic),
                Part::Field(Field::Level(number)) => out.push_str(values.captures.levels.get(number - 1).unwrap_or(&"")),
                Part::Field(Field::Tail) => {
                    let tail = values.captures.tail.unwrap_or("");
                    if tail.is_empty() && index + 1 == self.parts.len() && out.ends_with('/') {
                        out.pop();
                    }
                    out.push_str(tail);
                }
            }
        }
        out
    }
}

fn field(name: &str) -> Result<Field, TemplateError> {
    match name {
        "gateway" => Ok(Field::Gateway),
        "device" => Ok(Field::Device),
        "topic" => Ok(Field::Topic),
        "#" => Ok(Field::Tail),
        other => match other.parse() {
            Ok(number) if number > 0 => Ok(Field::Level(number)),
            _ => Err(TemplateError::Unknown(other.to_owned())),
        },
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, filter: &str, topic: &str) -> String {
        let filter = TopicFilter::parse(filter).unwrap();
        let captures = filter.captures(topic).unwrap();
        let template = Template::parse(template).unwrap();
        template.check(&filter).unwrap();
        template.render(&Values {
            gateway: "plant-7",
            device: "d1",
            topic,
            captures: &captures,
        })
    }

    #[test]
    fn placeholders_are_filled() {
        assert_eq!(
            render("dt/{gateway}/{device}/{#}", "devices/+/telemetry/#", "devices/x/telemetry/env/a"),
            "dt/plant-7/d1/env/a"
        );
        assert_eq!(
            render("{gateway}/{topic}", "devices/+/alarm", "devices/x/alarm"),
            "plant-7/devices/x/alarm"
        );
        assert_eq!(render("{2}-{1}", "+/+", "a/b"), "b-a");
    }

    #[test]
    fn an_empty_tail_leaves_no_trailing_separator() {
        assert_eq!(render("dt/{#}", "devices/#", "devices"), "dt");
    }

    #[test]
    fn what_the_filter_cannot_fill_is_refused() {
        let filter = TopicFilter::parse("devices/+").unwrap();
        let check = |text: &str| Template::parse(text).unwrap().check(&filter);
        assert_eq!(check("{2}"), Err(TemplateError::NoSuchLevel { wanted: 2, available: 1 }));
        assert_eq!(check("{#}"), Err(TemplateError::NoTail));
        assert_eq!(Template::parse("{devise}"), Err(TemplateError::Unknown("devise".to_owned())));
        assert_eq!(Template::parse("{0}"), Err(TemplateError::Unknown("0".to_owned())));
        assert_eq!(Template::parse("a{"), Err(TemplateError::Unclosed));
    }
}
