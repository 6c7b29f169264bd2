//! The order of the source tree: which folder may need which, and how many files stand in one.
#![allow(clippy::unwrap_used)]

#[path = "house/graph.rs"]
mod graph;
#[path = "house/imports.rs"]
mod imports;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a folder of product code may hold.
const MOST_FILES: usize = 15;

/// A crate whose places, its folders and top-level files, must not need each other in a circle.
struct Judged {
    name: &'static str,
    sources: &'static str,
    /// Places that stand in a circle today. Exact: a circle that is gone leaves the list.
    knots: &'static [&'static [&'static str]],
}

const JUDGED: &[Judged] = &[
    Judged {
        name: "wal",
        sources: "wal/src",
        knots: &[],
    },
    Judged {
        name: "broker",
        sources: "broker/src",
        knots: &[],
    },
    Judged {
        name: "bridge",
        sources: "bridge/src",
        knots: &[],
    },
    Judged {
        name: "chain",
        sources: "chain/src",
        knots: &[],
    },
    Judged {
        name: "topic",
        sources: "topic/src",
        knots: &[],
    },
    Judged {
        name: "forebay",
        sources: "src",
        knots: &[],
    },
];

/// Folders that hold more files than they should today. Exact, too.
const CROWDED: &[&str] = &[];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn no_folder_needs_one_that_needs_it() {
    let mut wrong = Vec::new();
    for judged in JUDGED {
        let graph = graph::of_crate(&root().join(judged.sources));
        let known: BTreeSet<BTreeSet<String>> = judged
            .knots
            .iter()
            .map(|knot| knot.iter().map(|place| (*place).to_owned()).collect())
            .collect();
        let found = graph.knots();
        for knot in found.difference(&known) {
            wrong.push(format!(
                "{}: {knot:?} need each other:\n{}",
                judged.name,
                graph.arrows_within(knot).join("\n")
            ));
        }
        for knot in known.difference(&found) {
            wrong.push(format!("{}: {knot:?} is no circle any more; take it off the list", judged.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A commit that ran another one would hide the time of an ack. So one file writes, and the others say what is to be written.
#[test]
fn only_the_writer_commits() {
    let sources = root().join("wal/src");
    let may = [
        // What opening changed, before there is a writer.
        ("recovery/begin.rs", "segments.commit("),
        ("recovery/begin.rs", "segments.switch("),
        ("commit/writer.rs", "segments.commit("),
        ("commit/writer.rs", "segments.switch("),
        ("commit/writer.rs", "impl Writer"),
    ];
    let mut found = BTreeSet::new();
    let mut folders: Vec<PathBuf> = ["commit", "intake", "inspect", "progress", "read", "recovery"]
        .iter()
        .map(|folder| sources.join(folder))
        .collect();
    while let Some(folder) = folders.pop() {
        let (inner, files): (Vec<PathBuf>, Vec<PathBuf>) = entries(&folder).into_iter().partition(|path| path.is_dir());
        folders.extend(inner);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(&sources).unwrap().to_str().unwrap().to_owned();
            let all = ["segments.commit(", "segments.switch(", "impl Writer"];
            found.extend(all.into_iter().filter(|what| text.contains(what)).map(|what| (name.clone(), what)));
        }
    }
    let may: BTreeSet<(String, &str)> = may.into_iter().map(|(file, what)| (file.to_owned(), what)).collect();
    assert_eq!(found, may);
}

#[test]
fn no_folder_holds_more_files_than_a_reader_keeps_in_mind() {
    let mut crowded = BTreeSet::new();
    for sources in ["src", "wal/src", "broker/src", "bridge/src", "chain/src", "topic/src"] {
        let mut folders = vec![root().join(sources)];
        while let Some(folder) = folders.pop().filter(|folder| folder.is_dir()) {
            let (inner, files): (Vec<PathBuf>, Vec<PathBuf>) = entries(&folder).into_iter().partition(|path| path.is_dir());
            let count = files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).count();
            if count > MOST_FILES {
                crowded.insert(folder.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
            folders.extend(inner);
        }
    }
    let known: BTreeSet<String> = CROWDED.iter().map(|folder| (*folder).to_owned()).collect();
    let new: Vec<_> = crowded.difference(&known).collect();
    let gone: Vec<_> = known.difference(&crowded).collect();
    assert!(new.is_empty(), "more than {MOST_FILES} files: {new:?}");
    assert!(gone.is_empty(), "not crowded any more; take them off the list: {gone:?}");
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
