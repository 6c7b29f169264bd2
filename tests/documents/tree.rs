//! The files of the tree, as paths from its root.

use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below a folder of the tree that end so, as paths from the root. What builds leave behind is left out.
pub(crate) fn files(folder: &str, ends: &[&str]) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && name != ".git" {
                    folders.push(entry.path());
                }
            } else if ends.iter().any(|end| name.ends_with(end)) {
                found.push(from_root(&entry.path()));
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn from_root(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// Whether a file of the tree has a test of this name.
pub(crate) fn is_test(file: &str, name: &str) -> bool {
    let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
    source
        .split(&format!("fn {name}("))
        .next()
        .is_some_and(|before| before.len() < source.len() && before.rsplit("\n\n").next().is_some_and(|head| head.contains("test")))
}

/// What stands between backquotes in a line.
pub(crate) fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// What is written for people, but for `firmware/`, which has words of its own.
pub(crate) fn pages() -> Vec<String> {
    let mut pages = files("", &[".md"]);
    pages.extend(files("config", &[".yaml", ".service"]));
    pages.extend(files("dashboards", &[".yml", ".py", ".json"]));
    pages.retain(|page| !page.starts_with("firmware/"));
    pages
}

/// The pages for people, with what they link to and name.
pub(crate) fn documents() -> Vec<String> {
    pages().into_iter().filter(|page| page.ends_with(".md")).collect()
}
