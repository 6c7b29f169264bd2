//! Holds the tree against the table of keys: unknown and double keys, missing ones, types, ranges, keys of later
//! versions.

use super::kind::Kind;
use super::reference::{Built, Default, KeyDoc, children, lookup};
use crate::config::fault::{Fault, nearest};
use crate::config::yaml::{Key, Node, Origin, Value};

const NOT_IN_THIS_VERSION: &str = "not in this version";

/// Reports everything about `root` that the table of keys can tell.
pub(in crate::config) fn check(root: &Node, faults: &mut Vec<Fault>) {
    match &root.value {
        // An empty file: the required keys are missing, which says more than "must be a map".
        Value::Null => missing(&[], "", "", root, faults),
        Value::Map(_) => check_map(root, "", "", faults),
        _ => faults.push(fault(root, "", "must be a map of keys, beginning with `gateway:`".to_owned())),
    }
}

/// A fault of this node.
pub(super) fn fault(node: &Node, path: &str, reason: String) -> Fault {
    Fault {
        value: node.to_string(),
        origin: override_name(&node.origin),
        line: node.line(),
        path: path.to_owned(),
        ..Fault::of_file(reason)
    }
}

fn check_map(node: &Node, generic: &str, path: &str, faults: &mut Vec<Fault>) {
    let Value::Map(entries) = &node.value else {
        faults.push(fault(node, path, Kind::Map.check(node).err().unwrap_or_default()));
        return;
    };
    let mut seen: Vec<&Key> = Vec::new();
    for (key, child) in entries {
        let child_path = join(path, &key.name);
        if let Some(first) = seen.iter().find(|first| first.name == key.name) {
            let reason = match first.origin {
                Origin::File(Some(line)) => format!("the key is given twice, first in line {line}; keep one"),
                _ => "the key is given twice; keep one".to_owned(),
            };
            faults.push(key_fault(key, child, &child_path, reason));
            continue;
        }
        seen.push(key);
        match lookup(&join(generic, &key.name)) {
            None => faults.push(unknown(key, child, generic, &child_path)),
            Some(doc) if doc.built == Built::No => faults.push(key_fault(key, child, &child_path, NOT_IN_THIS_VERSION.to_owned())),
            Some(doc) => check_value(child, doc, &child_path, faults),
        }
    }
    missing(entries, generic, path, node, faults);
}

fn check_value(node: &Node, doc: &KeyDoc, path: &str, faults: &mut Vec<Fault>) {
    if let Err(reason) = doc.kind.check(node) {
        let nearest = match (doc.kind, node.scalar()) {
            (Kind::Choice(words), Some(text)) => nearest(&text, words.iter().copied()).map(str::to_owned),
            _ => None,
        };
        faults.push(Fault {
            nearest,
            ..fault(node, path, reason)
        });
        return;
    }
    if let (Built::Only(built), Some(text)) = (doc.built, node.scalar())
        && !built.contains(&text.as_str())
    {
        faults.push(fault(node, path, format!("{NOT_IN_THIS_VERSION}; possible: {}", built.join(", "))));
    }
    match doc.kind {
        Kind::Map => check_map(node, doc.path, path, faults),
        Kind::List => {
            let generic = format!("{}[]", doc.path);
            for (index, item) in node.items().iter().enumerate() {
                check_map(item, &generic, &format!("{path}[{index}]"), faults);
            }
        }
        Kind::TextList => {
            for (index, item) in node.items().iter().enumerate() {
                check_item(item, &format!("{path}[{index}]"), faults);
            }
        }
        _ => {}
    }
}

fn check_item(item: &Node, path: &str, faults: &mut Vec<Fault>) {
    if item.value == Value::Null {
        let reason = "no value: a bare `#` begins a comment; quote it, as in \"#\"".to_owned();
        faults.push(fault(item, path, reason));
    } else if let Err(reason) = Kind::Text.check(item) {
        faults.push(fault(item, path, reason));
    }
}

fn unknown(key: &Key, child: &Node, generic: &str, path: &str) -> Fault {
    let known: Vec<_> = children(generic).map(KeyDoc::name).collect();
    let near = nearest(&key.name, known.iter().copied()).map(str::to_owned);
    let place = if generic.is_empty() { " at the top" } else { "" };
    let reason = match elsewhere(&key.name, generic) {
        Some(other) if near.is_none() => format!("unknown key{place}; there is `{other}`"),
        _ => format!("unknown key; known keys{place}: {}", known.join(", ")),
    };
    Fault {
        nearest: near,
        ..key_fault(key, child, path, reason)
    }
}

/// A key of that name in another place: it was probably indented wrongly.
fn elsewhere(name: &str, generic: &str) -> Option<&'static str> {
    super::reference::reference()
        .iter()
        .find(|key| key.name() == name && key.parent() != generic)
        .map(|key| key.path)
}

fn missing(entries: &[(Key, Node)], generic: &str, path: &str, node: &Node, faults: &mut Vec<Fault>) {
    for doc in children(generic) {
        if doc.default != Default::Required || doc.built == Built::No || entries.iter().any(|(key, _)| key.name == doc.name()) {
            continue;
        }
        let near = entries
            .iter()
            .map(|(key, _)| key.name.as_str())
            .filter(|name| lookup(&join(generic, name)).is_none())
            .find(|name| nearest(name, [doc.name()]).is_some());
        // A misspelt key is already reported; that it is therefore missing would be said twice.
        if near.is_none() {
            let line = if path.is_empty() { None } else { node.line() };
            let reason = format!("required and missing: {}", doc.doc);
            faults.push(Fault {
                path: join(path, doc.name()),
                line,
                ..Fault::of_file(reason)
            });
        }
    }
}

fn key_fault(key: &Key, child: &Node, path: &str, reason: String) -> Fault {
    let line = if let Origin::File(line) = key.origin { line } else { None };
    Fault {
        line,
        origin: override_name(&key.origin),
        ..fault(child, path, reason)
    }
}

fn override_name(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Override(name) => Some(name.to_string()),
        Origin::File(_) => None,
    }
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
