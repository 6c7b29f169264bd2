//! The pages of the tree, held against the tree: contracts and statements of MQTT name tests that exist, what is cited is stated, links, paths and
//! commands lead somewhere, workflows call only scripts that are there, and no banned phrase is used.
//!
//! Reads files and asks `cargo metadata` and `forebay --help`; `cargo test --test documents` starts no gateway.
#![allow(clippy::unwrap_used)]

#[path = "documents/commands.rs"]
mod commands;
#[path = "documents/conformance.rs"]
mod conformance;
#[path = "documents/contracts.rs"]
mod contracts;
#[path = "documents/decisions.rs"]
mod decisions;
#[path = "documents/packages.rs"]
mod packages;
#[path = "documents/paths.rs"]
mod paths;
#[path = "documents/phrases.rs"]
mod phrases;
#[path = "documents/texts.rs"]
mod texts;
#[path = "documents/tree.rs"]
mod tree;
