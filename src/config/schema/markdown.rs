//! `docs/configuration.md`, made from the table of keys.

use forebay_broker::{Bound, Limits};

use super::reference::{Built, Default, KeyDoc, reference};

const HEAD: &str = "# Configuration

<!-- Made from src/config/schema/reference.rs: FOREBAY_BLESS=1 cargo test --bin forebay configuration_reference -->

Forebay reads one YAML file (`-c`/`--config`). `config/minimal.yaml` is the shortest one. `config/forebay.yaml` shows
every key of this version with comments. `forebay check` reads the file without starting anything and lists all faults,
each with its key, line, value and reason. The exit code of a configuration that cannot be used is 78. Files that it names may come later: the gateway starts and waits for them.

* The environment overrides the file, and flags override both. `FOREBAY__SECTION__KEY=value` sets a key: double underscores
  between the names, items of lists by number from 0 (`FOREBAY__LISTENERS__0__BIND`). The value is read as YAML.
* Durations need a unit (`500ms`, `30s`, `20m`, `12h`, `7d`), and so do sizes (`5000B`, `128KiB`, `4GiB`; `KB` is 1000),
  rates (`50/s`) and bandwidths (`64KiB/s`). Only 0 needs none.
* Relative paths start at the folder of the file.
* Quote what begins with `#` or `*`, and anything with braces: `\"#\"`, `\"*\"`, `\"{cn}\"`.
";

const BOUNDS: &str = "
## Bounds on what peers leave behind

Each is charged before it is taken, and given back when it ends. A bound of each identity does not bind listeners with a fixed
word (`local`), and a tenth of the bounds that follow from `gateway.max_memory` is kept for those. `forebay_bound_reached_total`
counts how often each was reached, under its name here; while it is reached, `/status` has it among the problems. The values are
those of the default configuration.

| bound | of | of each | of all together | at the bound | follows from |
|---|---|---|---|---|---|
";

/// What has a fixed bound and costs no peer anything when it is reached.
const FIXED: &str = "
Two more things that peers leave behind have a fixed bound, and nothing waits or is refused at it. Of the topics of unrouted
publishes the 64 most frequent are kept. Of the log lines that peers cause, 64 pairs of a peer and a reason are told apart, the
first line in full and then a count each minute, and four lines a second are written; what is beyond is counted together.
";

/// The reference of all keys as Markdown.
#[must_use]
pub(crate) fn markdown() -> String {
    let mut page = HEAD.to_owned();
    let top = reference().iter().filter(|key| key.parent().is_empty());
    for section in top.filter(|key| key.built != Built::No) {
        let within = |key: &&KeyDoc| key.path.split(['.', '[']).next() == Some(section.path);
        page += &format!("\n## `{}`\n\n{} Default: {}.\n\n", section.path, section.doc, default(section));
        page += "| key | value | default | meaning |\n|---|---|---|---|\n";
        let keys = reference().iter().filter(within).filter(|key| key.path != section.path);
        for key in keys.filter(|key| key.built != Built::No) {
            page += &format!(
                "| `{}` | {} | {} | {}{} |\n",
                key.path,
                key.kind.describe(),
                default(key),
                key.doc,
                only(key)
            );
        }
    }
    page += &bounds();
    page += FIXED;
    page += "\n## Not in this version\n\nThese keys are reserved. They are refused with \"not in this version\":\n\n";
    for key in reference() {
        match key.built {
            Built::No => page += &format!("* `{}`: {}\n", key.path, key.doc),
            Built::Only(values) => page += &format!("* `{}` other than {}\n", key.path, ticked(values)),
            Built::Yes => {}
        }
    }
    page
}

/// The table of bounds, with its values by default.
fn bounds() -> String {
    let mut page = BOUNDS.to_owned();
    let limits = Limits::default();
    for bound in Bound::ALL {
        let line = bound.line();
        let show = |value: Option<u64>| value.map(|value| line.unit.show(value));
        let share = match show((line.share)(&limits)) {
            Some(share) => format!("{share} of one {}", line.sharer),
            None => String::new(),
        };
        page += &format!(
            "| `{}` | {} | {share} | {} | {} | {} |\n",
            bound.label(),
            line.what,
            show((line.whole)(&limits)).unwrap_or_default(),
            line.policy,
            ticked(&line.keys.split(", ").filter(|key| !key.is_empty()).collect::<Vec<_>>()),
        );
    }
    page
}

fn default(key: &KeyDoc) -> String {
    match key.default {
        Default::Required => "required".to_owned(),
        Default::Value(value) => format!("`{value}`"),
        Default::Words(words) => words.to_owned(),
    }
}

fn only(key: &KeyDoc) -> String {
    match key.built {
        Built::Only(values) => format!(" This version has {}.", ticked(values)),
        Built::Yes | Built::No => String::new(),
    }
}

fn ticked(values: &[&str]) -> String {
    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
}
