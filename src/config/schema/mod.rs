//! The table of keys, and what is made from it: the checks, the defaults, the reference.

mod check;
mod kind;
#[cfg(test)]
mod markdown;
mod reference;
mod section;

pub(in crate::config) use check::check;
#[cfg(test)]
pub(in crate::config) use markdown::markdown;
#[cfg(test)]
pub(in crate::config) use reference::{Built, Default, reference};
pub(in crate::config) use section::{NO_HOME, Reading, Section, is_of_a_home};
