//! `docs/contracts.md` names tests that exist, and states what is cited.

use std::collections::BTreeSet;

use super::tree::{files, is_test, quoted, read};

const CONTRACTS: &str = "docs/contracts.md";

/// The items of the lists below each `**Held by**`: a file and the names of tests in it.
fn held_by(page: &str) -> Vec<(String, Vec<String>)> {
    let mut items: Vec<(String, Vec<String>)> = vec![];
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("**") || line.starts_with('#') {
            inside = line == "**Held by**";
        }
        if !inside {
            continue;
        }
        let mut words = quoted(line).into_iter().map(str::to_owned);
        if line.starts_with("* ") {
            let file = words.next().unwrap_or_else(|| panic!("no file in `{line}`"));
            items.push((file, words.collect()));
        } else if let Some((_, names)) = items.last_mut() {
            names.extend(words);
        }
    }
    items
}

#[test]
fn each_test_that_a_contract_names_exists() {
    let page = read(CONTRACTS);
    let items = held_by(&page);
    assert!(items.len() > 50, "{CONTRACTS} has another form");
    let mut missing = vec![];
    for (file, names) in items {
        assert!(!names.is_empty(), "{CONTRACTS} names no test of {file}");
        for name in names {
            if !is_test(&file, &name) {
                missing.push(format!("{file}: {name}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "{CONTRACTS} names tests that are not there:\n{}",
        missing.join("\n")
    );
}

#[test]
fn each_contract_has_its_parts() {
    let page = read(CONTRACTS);
    let sections: Vec<_> = page.split("\n## C").skip(1).collect();
    assert_eq!(sections.len(), 13, "contracts of this version");
    for section in sections {
        for part in ["\n**Not promised**\n", "\n**Held by**\n"] {
            assert!(section.contains(part), "C{} lacks {part}", section.lines().next().unwrap());
        }
    }
}

/// The numbers of contracts in a text: `C9`, where no letter or digit stands beside it.
fn cited(text: &str) -> Vec<u32> {
    let mut found = vec![];
    for (at, _) in text.match_indices('C') {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let rest = &text[at + 1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if (1..=2).contains(&digits) && !is_word(text[..at].chars().next_back()) && !is_word(rest[digits..].chars().next()) {
            found.push(rest[..digits].parse().unwrap());
        }
    }
    found
}

/// `firmware/` is left out: the radio module there has commands with such names.
#[test]
fn each_contract_that_is_cited_is_stated() {
    let page = read(CONTRACTS);
    let stated: BTreeSet<_> = page
        .lines()
        .filter(|line| line.starts_with("## C") || line.starts_with("* **C"))
        .flat_map(|line| cited(line).into_iter().take(1))
        .collect();
    let mut citations = 0;
    for file in files("", &[".md", ".rs"]) {
        if file.starts_with("firmware/") || file == CONTRACTS {
            continue;
        }
        let is_code = file.ends_with(".rs");
        for line in read(&file).lines() {
            let text = if is_code {
                line.split_once("//").map_or("", |(_, comment)| comment)
            } else {
                line
            };
            for number in cited(text) {
                citations += 1;
                assert!(stated.contains(&number), "{file} cites C{number}, which {CONTRACTS} does not state");
            }
        }
    }
    assert!(citations > 10, "only {citations} citations were found");
}
