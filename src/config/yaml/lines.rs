//! The line of every node of a YAML text, in the shape of the text.

use saphyr_parser::{Event, Parser, StrInput};

/// Where a node begins, and its children.
#[derive(Debug)]
pub(super) struct Lines {
    /// The line, from 1.
    pub(super) line: usize,
    /// Its children.
    pub(super) shape: Shape,
}

/// The children of a node.
#[derive(Debug)]
pub(super) enum Shape {
    /// A scalar or an alias.
    Leaf,
    /// The items of a list.
    List(Vec<Lines>),
    /// The lines of the keys of a mapping, with their values.
    Map(Vec<(usize, Lines)>),
}

impl Lines {
    /// Reads the text; none if this parser does not understand it, which costs line numbers and nothing else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut events = Parser::new_from_str(text);
        loop {
            match next(&mut events)? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (event, line) => return node(&event, line, &mut events),
            }
        }
    }
}

/// Recursion is bounded: serde_yaml has read the same text before and refuses more than 128 levels.
fn node<'t>(event: &Event<'t>, line: usize, events: &mut Parser<'t, StrInput<'t>>) -> Option<Lines> {
    let shape = match event {
        Event::Scalar(..) | Event::Alias(_) => Shape::Leaf,
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match next(events)? {
                    (Event::SequenceEnd, _) => break Shape::List(items),
                    (event, line) => items.push(node(&event, line, events)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                match next(events)? {
                    (Event::MappingEnd, _) => break Shape::Map(entries),
                    (event, line) => {
                        let key = node(&event, line, events)?;
                        let (event, line) = next(events)?;
                        entries.push((key.line, node(&event, line, events)?));
                    }
                }
            }
        }
        _ => return None,
    };
    Some(Lines { line, shape })
}

fn next<'t>(events: &mut Parser<'t, StrInput<'t>>) -> Option<(Event<'t>, usize)> {
    let (event, span) = events.next()?.ok()?;
    Some((event, span.start.line()))
}
