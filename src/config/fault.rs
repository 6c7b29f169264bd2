//! What is wrong with a configuration, told so that it can be fixed.

use std::fmt;
use std::path::PathBuf;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where: `routes[1].stream`. Empty for the file as a whole.
    pub(crate) path: String,
    /// The line in the file, from 1; none when the value did not come from the file.
    pub(crate) line: Option<usize>,
    /// Where the value came from if not from the file: `FOREBAY__GATEWAY__ID` or `--set gateway.id=...`.
    pub(crate) origin: Option<String>,
    /// The value as given, shortened; empty when a value is missing.
    pub(crate) value: String,
    /// What is wrong and what to do.
    pub(crate) reason: String,
    /// The nearest name that would have been right.
    pub(crate) nearest: Option<String>,
    /// It is about another file, which may come later or be written right now: `forebay run` waits for it.
    pub(crate) passes: bool,
}

impl Fault {
    /// A fault of the file as a whole.
    pub(super) fn of_file(reason: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            line: None,
            origin: None,
            value: String::new(),
            reason: reason.into(),
            nearest: None,
            passes: false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "the file" } else { &self.path };
        write!(f, "{place}")?;
        match (&self.origin, self.line) {
            (Some(origin), _) => write!(f, " (from {origin})")?,
            (None, Some(line)) => write!(f, " (line {line})")?,
            (None, None) => {}
        }
        if !self.value.is_empty() {
            write!(f, "\n    value:  {}", self.value)?;
        }
        write!(f, "\n    reason: {}", self.reason)?;
        if let Some(nearest) = &self.nearest {
            write!(f, "\n    did you mean `{nearest}`?")?;
        }
        Ok(())
    }
}

/// A configuration that cannot be used: everything that is wrong with it, in the order of the file. The process exits
/// with code 78 (`EX_CONFIG`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// The file that was read.
    pub(crate) file: PathBuf,
    /// All faults, at least one.
    pub(crate) faults: Vec<Fault>,
}

impl ConfigError {
    /// Whether all that is wrong is about other files, which may come later: not the text of this one.
    pub(crate) fn passes(&self) -> bool {
        self.faults.iter().all(|fault| fault.passes)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        let noun = if count == 1 { "fault" } else { "faults" };
        write!(f, "{}: {count} {noun} in the configuration", self.file.display())?;
        for fault in &self.faults {
            write!(f, "\n\n  {}", fault.to_string().replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The known name nearest to `wrong`, if one is near enough to have been meant.
pub(crate) fn nearest<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1.max(name.len().max(wrong.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A value for showing: one line, at most 60 characters.
pub(super) fn shorten(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if !forebay_topic::is_safe(c) { ' ' } else { c })
        .take(61)
        .collect();
    if line.chars().count() > 60 {
        line.chars().take(57).chain("...".chars()).collect()
    } else {
        line
    }
}
