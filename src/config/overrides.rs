//! Settings from the environment and from flags, laid over the file: file < `FOREBAY__SECTION__KEY` < flags.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::{Fault, shorten};
use super::yaml::{Key, Node, Origin, Value};

const PREFIX: &str = "FOREBAY__";

/// What is laid over the file.
#[derive(Clone, Default)]
pub(crate) struct Overrides {
    /// Environment variables. Those that begin with `FOREBAY__` set keys (`FOREBAY__LISTENERS__0__BIND=[::]:8883`; the
    /// value is read as YAML), `STATE_DIRECTORY` is the default of `gateway.data_dir`.
    pub(crate) env: BTreeMap<String, String>,
    /// `key.path=value` from flags: `listeners.0.bind=[::]:8883`. They win over the environment.
    pub(crate) set: Vec<String>,
    /// Leaves unchecked whether the files exist that the configuration names.
    pub(crate) skip_files: bool,
}

/// Values may be secret one day: only the names are shown.
impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set: Vec<_> = self.set.iter().map(|entry| entry.split('=').next().unwrap_or_default()).collect();
        let env: Vec<_> = self.env.keys().filter(|name| name.starts_with(PREFIX)).collect();
        f.debug_struct("Overrides")
            .field("env", &env)
            .field("set", &set)
            .field("skip_files", &self.skip_files)
            .finish()
    }
}

impl Overrides {
    /// The environment of this process, and these flags.
    #[must_use]
    pub(crate) fn from_process(set: Vec<String>) -> Self {
        let wanted = |name: &str| name.starts_with(PREFIX) || name == "STATE_DIRECTORY";
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        let env = std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| wanted(name))
            .collect();
        Self {
            env,
            set,
            skip_files: false,
        }
    }

    /// Lays them over the tree.
    pub(super) fn apply(&self, root: &mut Node, faults: &mut Vec<Fault>) {
        let mut from_env: Vec<_> = self
            .env
            .iter()
            .filter_map(|(name, value)| Some((steps(name.strip_prefix(PREFIX)?.to_lowercase().split("__")), name.as_str(), value)))
            .collect();
        from_env.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, name, value) in from_env {
            set(root, &path, value, &Arc::from(name), faults);
        }
        for entry in &self.set {
            let Some((path, value)) = entry.split_once('=') else {
                let reason = "a setting is key.path=value, for example gateway.id=plant-7";
                faults.push(Fault {
                    origin: Some("a flag".to_owned()),
                    value: shorten(entry),
                    ..Fault::of_file(reason)
                });
                continue;
            };
            let path = path.trim();
            let split = path.replace('[', ".").replace(']', "");
            set(root, &steps(split.split('.')), value, &Arc::from(format!("--set {path}")), faults);
        }
    }
}

/// A step of a key path. Ordered so that lists fill from the front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index(usize),
    Name(String),
}

fn steps<'p>(parts: impl Iterator<Item = &'p str>) -> Vec<Step> {
    parts
        .map(|part| part.parse().map_or_else(|_| Step::Name(part.to_owned()), Step::Index))
        .collect()
}

fn show(path: &[Step]) -> String {
    let mut shown = String::new();
    for step in path {
        match step {
            Step::Index(index) => shown.push_str(&format!("[{index}]")),
            Step::Name(name) if shown.is_empty() => shown.push_str(name),
            Step::Name(name) => shown.push_str(&format!(".{name}")),
        }
    }
    shown
}

fn set(root: &mut Node, path: &[Step], value: &str, origin: &Arc<str>, faults: &mut Vec<Fault>) {
    let mut fail = |reason: String| {
        let fault = Fault {
            path: show(path),
            origin: Some(origin.to_string()),
            value: shorten(value),
            ..Fault::of_file(reason)
        };
        faults.push(fault);
    };
    if path.iter().any(|step| matches!(step, Step::Name(name) if name.is_empty())) {
        return fail("the name of a key is empty".to_owned());
    }
    let leaf = match Node::parse_override(value, origin) {
        Ok(leaf) => leaf,
        Err(reason) => return fail(reason),
    };
    let mut node = root;
    for (depth, step) in path.iter().enumerate() {
        match descend(node, step, origin) {
            Ok(child) => node = child,
            Err(reason) => {
                return fail(format!(
                    "{} {reason}",
                    if depth == 0 { "the file".to_owned() } else { show(&path[..depth]) }
                ));
            }
        }
    }
    *node = leaf;
}

/// The child, made if it does not exist.
fn descend<'n>(node: &'n mut Node, step: &Step, origin: &Arc<str>) -> Result<&'n mut Node, String> {
    let empty = || Node {
        origin: Origin::Override(Arc::clone(origin)),
        value: Value::Null,
    };
    if node.value == Value::Null {
        node.value = if matches!(step, Step::Index(_)) {
            Value::List(Vec::new())
        } else {
            Value::Map(Vec::new())
        };
    }
    match (&mut node.value, step) {
        (Value::List(items), Step::Index(index)) => {
            let length = items.len();
            if *index == length {
                items.push(empty());
            }
            items
                .get_mut(*index)
                .ok_or_else(|| format!("has {length} items: the next one is number {length} (they count from 0)"))
        }
        (Value::Map(entries), Step::Name(name)) => {
            let at = entries.iter().position(|(key, _)| key.name == *name).unwrap_or_else(|| {
                entries.push((
                    Key {
                        name: name.clone(),
                        origin: Origin::Override(Arc::clone(origin)),
                    },
                    empty(),
                ));
                entries.len() - 1
            });
            Ok(&mut entries[at].1)
        }
        (Value::List(_), Step::Name(name)) => Err(format!("is a list: give the number of an item, not `{name}`")),
        (Value::Map(_), Step::Index(index)) => Err(format!("is a map: give the name of a key, not {index}")),
        _ => Err("is a single value and has no keys".to_owned()),
    }
}
