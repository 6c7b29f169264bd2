//! The gateway on one screen, for a tired person: made from the JSON of `/status`, for a terminal and for a browser alike.

mod ansi;
mod html;
mod layout;

#[cfg(test)]
mod tests;

pub(crate) use ansi::terminal;
pub(crate) use html::document;
pub(crate) use layout::{is_well, page};

/// What a piece of text wants to say by its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Nothing.
    Plain,
    /// A heading.
    Bold,
    /// Beside the point.
    Dim,
    /// As it should be.
    Good,
    /// Should be looked at.
    Warn,
    /// Wrong.
    Bad,
}

/// One line: pieces of text side by side.
pub(crate) type Line = Vec<(Style, String)>;
