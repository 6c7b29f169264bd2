//! The pages of the tree, held against the tree: contracts name tests that exist, what is cited is stated, links and paths
//! lead somewhere, and no banned phrase is used.
//!
//! Reads files only, so `cargo test --test documents` starts nothing.
#![allow(clippy::unwrap_used)]

#[path = "documents/contracts.rs"]
mod contracts;
#[path = "documents/paths.rs"]
mod paths;
#[path = "documents/phrases.rs"]
mod phrases;
#[path = "documents/tree.rs"]
mod tree;
