//! Workflows and pages name only scripts, packages, tests and commands that exist.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;
use serde_yaml::Value as Yaml;

use super::packages::packages;
use super::tree::{documents, files, read, root};

/// Every value that stands under this key, anywhere in the document.
fn under<'a>(key: &str, document: &'a Yaml, found: &mut Vec<&'a str>) {
    match document {
        Yaml::Mapping(map) => {
            for (name, value) in map {
                match value.as_str() {
                    Some(text) if name.as_str() == Some(key) => found.push(text),
                    _ => under(key, value, found),
                }
            }
        }
        Yaml::Sequence(list) => list.iter().for_each(|value| under(key, value, found)),
        _ => {}
    }
}

/// The words that a script's usage line has after its own name.
fn known_arguments(script: &str) -> Vec<String> {
    let text = read(script);
    let usage = text.lines().find_map(|line| line.split_once("usage: "));
    let words = usage
        .map_or("", |(_, usage)| usage)
        .split(|sign: char| sign.is_whitespace() || "[]|\"".contains(sign));
    words.filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
}

/// What is wrong with a command line that begins with a script of the tree; `<`, `$` and capitals stand for something else.
fn script_fault(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let script = words.next().unwrap_or_default();
    let Ok(metadata) = std::fs::metadata(root().join(script)) else {
        return Some(format!("{script} does not exist"));
    };
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Some(format!("{script} cannot be run"));
    }
    let known = known_arguments(script);
    let is_placeholder =
        |word: &str| word.contains(['$', '<', '.']) || word.chars().all(|sign| sign.is_ascii_uppercase() || sign.is_ascii_digit());
    let word = words.next().filter(|word| *word != "#" && !is_placeholder(word))?;
    (!known.is_empty() && !known.iter().any(|argument| argument == word)).then(|| format!("{script} knows no `{word}`, only {known:?}"))
}

#[test]
fn workflows_call_only_scripts_of_the_tree_and_pinned_actions() {
    let toolchain = read("rust-toolchain.toml");
    let compiler = toolchain.split('"').nth(1).unwrap();
    for name in files(".github/workflows", &[".yml"]) {
        let workflow: Yaml = serde_yaml::from_str(&read(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (mut runs, mut actions, mut images) = (Vec::new(), Vec::new(), Vec::new());
        under("run", &workflow, &mut runs);
        under("uses", &workflow, &mut actions);
        under("container", &workflow, &mut images);
        under("image", &workflow, &mut images);
        assert!(!runs.is_empty(), "{name} runs nothing");
        for run in runs {
            assert_eq!(
                run.lines().count(),
                1,
                "{name}: a script of the tree can be run anywhere, this only there: {run}"
            );
            assert_eq!(script_fault(run), None, "{name}: {run}");
        }
        for action in actions {
            let tag = action.split_once('@').map_or("", |(_, tag)| tag);
            let is_tag = tag.starts_with('v') && tag[1..].starts_with(|sign: char| sign.is_ascii_digit());
            assert!(is_tag, "{name}: {action} is not pinned by a tag");
        }
        for image in images {
            assert!(
                image.starts_with(&format!("rust:{compiler}-")),
                "{name}: {image}, but rust-toolchain.toml has {compiler}"
            );
        }
    }
}

/// Command lines in a page: the lines of its code blocks and its inline code.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_block = false;
    for line in read(page).lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let line = line.split(" #").next().unwrap_or_default();
            commands.extend(line.split("&&").map(|part| part.trim().to_owned()));
        } else {
            commands.extend(line.split('`').skip(1).step_by(2).map(ToOwned::to_owned));
        }
    }
    commands
}

/// What is wrong with a `cargo` command: packages, tests and binaries that do not exist.
fn cargo_fault(line: &str, packages: &[Value]) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().take_while(|word| *word != "--").collect();
    let after = |flag: &str| {
        words
            .windows(2)
            .filter(|pair| pair[0] == flag)
            .map(|pair| pair[1])
            .collect::<Vec<_>>()
    };
    let named = after("-p");
    let package = |name: &str| packages.iter().find(|package| package["name"] == name);
    if let Some(unknown) = named.iter().find(|name| package(name).is_none()) {
        return Some(format!("there is no package {unknown}"));
    }
    let package = package(named.first().unwrap_or(&"forebay"))?;
    let targets = package["targets"].as_array().unwrap();
    for (flag, kind) in [("--test", "test"), ("--bin", "bin"), ("--bench", "bench")] {
        for name in after(flag) {
            let exists = targets.iter().any(|target| target["name"] == name && target["kind"][0] == kind);
            if !exists {
                return Some(format!("there is no {kind} {name} in {}", package["name"]));
            }
        }
    }
    None
}

#[test]
fn pages_name_only_commands_that_exist() {
    let packages = packages("Cargo.toml");
    let help = Command::new(env!("CARGO_BIN_EXE_forebay")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let subcommands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(subcommands.contains(&"run"), "{help}");
    let mut count = 0;
    for page in documents() {
        for command in commands(&page) {
            let assignments = |word: &&str| word.contains('=') && word.starts_with(|sign: char| sign.is_ascii_uppercase());
            let words: Vec<&str> = command.split_whitespace().skip_while(assignments).collect();
            let line = words.join(" ");
            let fault = match words[..] {
                [script, ..] if ["tests/run", "firmware/run"].contains(&script) => script_fault(&line),
                [script, ..] if script.starts_with("tests/ci/") || script.starts_with("packaging/") => script_fault(&line),
                ["cargo", ..] => cargo_fault(&line, &packages),
                ["forebay", word, ..] if !word.starts_with('-') => {
                    (!subcommands.contains(&word)).then(|| format!("forebay knows no `{word}`, only {subcommands:?}"))
                }
                _ => continue,
            };
            assert_eq!(fault, None, "{page}: {command}");
            count += 1;
        }
    }
    assert!(count > 30, "only {count} commands were found: pages have another form");
}
