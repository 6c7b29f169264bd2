//! What `forebay check` found, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::config::ConfigError;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Works, and should be looked at.
    Warn,
    /// Does not work.
    Error,
}

/// What a check of a configuration that can be read is about.
pub(crate) const AREAS: [&str; 8] = [
    "access",
    "routes",
    "topics",
    "certificates",
    "disk",
    "memory",
    "descriptors",
    "admin",
];

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How much it matters.
    pub(crate) severity: Severity,
    /// What it is about: `config`, `access`, `routes`, `topics`, `certificates`, `disk`, `memory`, `descriptors`, `admin`, `sample`.
    pub(crate) area: &'static str,
    /// What was found.
    pub(crate) text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// All findings, in the order in which they were looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The findings.
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// The report of a configuration that could not even be read: its faults, as errors of the area `config`.
    #[must_use]
    pub(crate) fn of_faults(error: &ConfigError) -> Self {
        let finding = |fault: &crate::config::Fault| Finding {
            severity: Severity::Error,
            area: "config",
            text: fault.to_string(),
            hint: None,
        };
        Self {
            findings: error.faults.iter().map(finding).collect(),
        }
    }

    /// Whether anything does not work: the process then exits with 78.
    #[must_use]
    pub(crate) fn failed(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// The report as one JSON object.
    #[must_use]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "ok": !self.failed(),
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warn),
            "findings": self.findings,
        })
    }

    pub(super) fn ok(&mut self, area: &'static str, text: impl Into<String>) {
        self.add(Severity::Ok, area, text, None);
    }

    pub(super) fn warn(&mut self, area: &'static str, text: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warn, area, text, Some(hint.into()));
    }

    pub(super) fn error(&mut self, area: &'static str, text: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, area, text, Some(hint.into()));
    }

    pub(super) fn add(&mut self, severity: Severity, area: &'static str, text: impl Into<String>, hint: Option<String>) {
        self.findings.push(Finding {
            severity,
            area,
            text: text.into(),
            hint,
        });
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let mark = match finding.severity {
                Severity::Ok => "ok   ",
                Severity::Warn => "warn ",
                Severity::Error => "error",
            };
            let text = finding.text.replace('\n', "\n                     ");
            writeln!(f, "{mark}  {:<12}  {text}", finding.area)?;
            if let Some(hint) = &finding.hint {
                writeln!(f, "                     -> {hint}")?;
            }
        }
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warn));
        write!(f, "{}", counted(errors, "error"))?;
        write!(f, ", {}", counted(warnings, "warning"))
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
