//! Reading typed values out of the tree, with the defaults of the table of keys.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{fault, join};
use super::reference::{Default, lookup};
use crate::config::fault::Fault;
use crate::config::units;
use crate::config::yaml::Node;

/// What all sections share while a configuration is read.
#[derive(Debug)]
pub(in crate::config) struct Reading<'a> {
    /// The folder of the file, where relative paths start.
    pub(in crate::config) base_dir: &'a Path,
    /// Whether named files must exist.
    pub(in crate::config) check_files: bool,
    /// All that was found wrong.
    pub(in crate::config) faults: Vec<Fault>,
}

/// One map of the configuration, perhaps absent. Values that `schema` has refused read as if left out, so nothing is
/// reported twice.
#[derive(Clone, Debug)]
pub(in crate::config) struct Section<'n> {
    node: Option<&'n Node>,
    generic: String,
    path: String,
    line: Option<usize>,
}

impl<'n> Section<'n> {
    pub(in crate::config) fn root(node: &'n Node) -> Self {
        Self {
            node: Some(node),
            generic: String::new(),
            path: String::new(),
            line: None,
        }
    }

    /// Whether the section stands in the configuration.
    pub(in crate::config) fn present(&self) -> bool {
        self.node.is_some()
    }

    /// A map within this one.
    pub(in crate::config) fn section(&self, name: &str) -> Self {
        let node = self.given(name);
        let line = node.and_then(Node::line).or(self.line);
        Self {
            node,
            generic: join(&self.generic, name),
            path: join(&self.path, name),
            line,
        }
    }

    /// The maps of a list; none if it is left out.
    pub(in crate::config) fn list(&self, name: &str) -> Option<Vec<Self>> {
        let items = self.given(name)?.items();
        let generic = format!("{}[]", join(&self.generic, name));
        let path = join(&self.path, name);
        let section = |(index, node): (usize, &'n Node)| Self {
            node: Some(node),
            generic: generic.clone(),
            path: format!("{path}[{index}]"),
            line: node.line(),
        };
        Some(items.iter().enumerate().map(section).collect())
    }

    /// The node of a key, if it is there and of the right type.
    pub(in crate::config) fn given(&self, name: &str) -> Option<&'n Node> {
        let doc = lookup(&join(&self.generic, name))?;
        self.node?.child(name).filter(|node| doc.kind.check(node).is_ok())
    }

    /// Whether the key stands there, right or wrong.
    pub(in crate::config) fn has(&self, name: &str) -> bool {
        self.node.is_some_and(|node| node.child(name).is_some())
    }

    /// The value, else the default of the table.
    pub(in crate::config) fn text(&self, name: &str) -> Option<String> {
        self.given(name)
            .and_then(Node::scalar)
            .or_else(|| match lookup(&join(&self.generic, name))?.default {
                Default::Value(default) => Some(default.to_owned()),
                Default::Required | Default::Words(_) => None,
            })
    }

    /// The texts of a list; empty if it is left out.
    pub(in crate::config) fn texts(&self, name: &str) -> Vec<String> {
        self.given(name)
            .map(|node| node.items().iter().filter_map(Node::scalar).collect())
            .unwrap_or_default()
    }

    pub(in crate::config) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text == "true")
    }

    pub(in crate::config) fn integer(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    pub(in crate::config) fn duration(&self, name: &str) -> Option<Duration> {
        units::duration(&self.text(name)?).ok()
    }

    pub(in crate::config) fn bytes(&self, name: &str) -> Option<u64> {
        units::bytes(&self.text(name)?).ok()
    }

    pub(in crate::config) fn bandwidth(&self, name: &str) -> Option<u64> {
        units::bandwidth(&self.text(name)?).ok()
    }

    pub(in crate::config) fn rate(&self, name: &str) -> Option<f64> {
        units::rate(&self.text(name)?).ok()
    }

    /// A share from 0 to 1.
    pub(in crate::config) fn share(&self, name: &str) -> Option<f64> {
        units::percent(&self.text(name)?).ok()
    }

    pub(in crate::config) fn socket(&self, name: &str) -> Option<SocketAddr> {
        self.text(name)?.parse().ok()
    }

    /// A file: the given one, else the default. Reported if it cannot be read; `hint` says what to do then.
    pub(in crate::config) fn file(&self, name: &str, default: Option<&str>, hint: &str, reading: &mut Reading<'_>) -> Option<PathBuf> {
        let written = self.given(name).and_then(Node::scalar).or_else(|| default.map(str::to_owned))?;
        let path = reading.base_dir.join(&written);
        if is_of_a_home(&written) {
            reading.faults.push(self.fault(name, NO_HOME));
        } else if reading.check_files
            && let Err((kind, error)) = readable(&path)
        {
            let by_default = if self.has(name) { "" } else { " (the default)" };
            let hint = advice(kind, hint);
            let reason = format!("cannot read {}{by_default}: {error}. {hint}", path.display());
            let fault = self.fault(name, reason);
            let value = if fault.value.is_empty() { written } else { fault.value };
            reading.faults.push(Fault {
                value,
                passes: true,
                ..fault
            });
        }
        Some(path)
    }

    /// A fault of one of the section's keys.
    pub(in crate::config) fn fault(&self, name: &str, reason: impl Into<String>) -> Fault {
        let path = join(&self.path, name);
        match self.node.and_then(|node| node.child(name)) {
            Some(node) => fault(node, &path, reason.into()),
            None => Fault {
                path,
                line: self.line,
                ..Fault::of_file(reason)
            },
        }
    }

    /// A fault of one item of a list of texts.
    pub(in crate::config) fn item_fault(&self, name: &str, index: usize, reason: impl Into<String>) -> Fault {
        let path = format!("{}[{index}]", join(&self.path, name));
        match self.node.and_then(|node| node.child(name)).and_then(|node| node.items().get(index)) {
            Some(node) => fault(node, &path, reason.into()),
            None => self.fault(name, reason),
        }
    }
}

/// Only a shell expands it.
pub(in crate::config) const NO_HOME: &str = "`~` is not expanded here, it would be a folder of that name; write the whole path";

/// Whether a path begins with a user's home, as a shell would expand it.
pub(in crate::config) fn is_of_a_home(written: &str) -> bool {
    written.starts_with('~')
}

fn readable(path: &Path) -> Result<(), (ErrorKind, String)> {
    let failed = |error: std::io::Error| (error.kind(), error.to_string());
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() {
        Ok(())
    } else {
        Err((ErrorKind::NotFound, "it is not a file".to_owned()))
    }
}

/// What to do about a file that cannot be read: one that is there need not be made again.
fn advice(kind: ErrorKind, hint: &str) -> &str {
    match kind {
        ErrorKind::PermissionDenied => {
            "It is there: let the user that runs forebay read it (its group and mode, and those of the folders above it)"
        }
        _ => hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d_a_file_that_may_not_be_read_need_not_be_made_again() {
        assert_eq!(advice(ErrorKind::NotFound, "make it"), "make it");
        assert!(advice(ErrorKind::PermissionDenied, "make it").contains("let the user that runs forebay read it"));
    }
}
