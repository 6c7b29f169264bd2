//! `docs/conformance.md` states each numbered statement of both versions of MQTT once, and what holds it.

use std::collections::BTreeSet;

use super::tree::{files, is_test, quoted, read};

const PAGE: &str = "docs/conformance.md";
/// A heading of the page, the list of the numbers, and how many the standard has.
const VERSIONS: [(&str, &str, usize); 2] = [
    ("MQTT 3.1.1", "tests/documents/mqtt/3.1.1.txt", 141),
    ("MQTT 5.0", "tests/documents/mqtt/5.0.txt", 251),
];
/// How a last column begins that needs no test.
const REASONS: [&str; 4] = ["Client's duty.", "Not offered: ", "Does not apply: ", "Not in this version: "];

/// The statements of a version, as the standard numbers them: `MQTT-3.1.2-4`.
fn numbered(list: &str) -> Vec<String> {
    let mut all = vec![];
    for line in read(list).lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<_> = line.split(' ').collect();
        let (first, last): (u32, u32) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
        all.extend((first..=last).map(|number| format!("MQTT-{}-{number}", parts[0])));
    }
    all
}

/// The rows below a heading: a statement, what it says, and what holds it.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<[&'a str; 3]> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| MQTT-"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("not three columns: {line}"))
    })
    .collect()
}

/// The tests that a column names: file and name. A file is followed by the names of its tests.
fn cited(column: &str) -> Vec<(&str, &str)> {
    let mut file = None;
    let mut found = vec![];
    for word in quoted(column) {
        if word.ends_with(".rs") {
            file = Some(word);
        } else if let Some(file) = file {
            found.push((file, word));
        }
    }
    found
}

/// What is wrong with a last column.
fn fault(column: &str) -> Option<String> {
    let tests = cited(column);
    let has_reason = REASONS.iter().any(|reason| column.starts_with(reason));
    if !has_reason && (tests.is_empty() || !column.starts_with('`')) {
        return Some(format!("neither a test nor a reason: {column}"));
    }
    let missing = tests.iter().find(|(file, name)| !is_test(file, name));
    missing.map(|(file, name)| format!("{file} has no test {name}"))
}

#[test]
fn each_statement_of_mqtt_is_held_by_tests_or_says_why_not() {
    let page = read(PAGE);
    let mut wrong = vec![];
    for (heading, list, count) in VERSIONS {
        let numbered = numbered(list);
        assert_eq!(numbered.len(), count, "{list}");
        let rows = rows(&page, heading);
        let stated: Vec<_> = rows.iter().map(|row| row[0].to_owned()).collect();
        for statement in &numbered {
            let times = stated.iter().filter(|stated| *stated == statement).count();
            if times != 1 {
                wrong.push(format!("{heading}: {statement} is stated {times} times"));
            }
        }
        let unknown = stated.iter().filter(|statement| !numbered.contains(statement));
        wrong.extend(unknown.map(|statement| format!("{heading}: there is no {statement}")));
        for [statement, says, held] in rows {
            if says.is_empty() {
                wrong.push(format!("{heading}: {statement} says nothing"));
            }
            wrong.extend(fault(held).map(|fault| format!("{heading}: {statement}: {fault}")));
        }
    }
    assert!(wrong.is_empty(), "{PAGE}:\n{}", wrong.join("\n"));
}

#[test]
fn a_column_without_a_test_or_reason_is_a_fault() {
    let here = "`tests/documents/conformance.rs`: `a_column_without_a_test_or_reason_is_a_fault`";
    for good in [here, "Client's duty.", &format!("Not offered: no. {here}")] {
        assert_eq!(fault(good), None);
    }
    for bad in [
        "",
        "To do.",
        "`tests/documents/conformance.rs`",
        "`tests/documents/conformance.rs`: `no_such_test`",
        "`tests/documents/conformance.rs`: `fault`",
        "`tests/no_such_file.rs`: `no_such_test`",
        "Client's duty. `tests/documents/conformance.rs`: `no_such_test`",
    ] {
        assert!(fault(bad).is_some(), "{bad}");
    }
}

/// Where the code names a rule as `MQTT-3.1.2-4`, one of the two standards has it.
#[test]
fn each_statement_that_the_code_cites_exists() {
    let known: BTreeSet<_> = VERSIONS.iter().flat_map(|(_, list, _)| numbered(list)).collect();
    let mut unknown = vec![];
    let mut count = 0;
    for file in files("", &[".rs"]).iter().filter(|file| *file != "tests/documents/conformance.rs") {
        let text = read(file);
        for (at, _) in text.match_indices("MQTT-") {
            let rest = &text[at..];
            let end = 5 + rest[5..]
                .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-')
                .unwrap_or(rest.len() - 5);
            let cited = rest[..end].trim_end_matches(['.', '-']);
            if cited.matches('.').count() == 2 {
                count += 1;
                if !known.contains(cited) {
                    unknown.push(format!("{file}: {cited}"));
                }
            }
        }
    }
    assert!(count > 50, "only {count} citations were found");
    assert!(unknown.is_empty(), "statements that neither standard has:\n{}", unknown.join("\n"));
}
