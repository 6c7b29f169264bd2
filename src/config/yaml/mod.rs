//! From YAML text to a tree of values that know where they were written.

mod lines;
mod tree;

pub(in crate::config) use tree::{Key, Node, Origin, Value};
