//! Links and paths in the pages lead somewhere.

use std::path::{Path, PathBuf};

use super::tree::{documents, files, quoted, read, root};

fn folder(page: &str) -> PathBuf {
    root().join(page).parent().unwrap().to_path_buf()
}

const ARCHITECTURE: &str = "docs/architecture.md";

/// What a link to a heading is called.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn each_link_leads_somewhere() {
    let mut broken = vec![];
    let mut links = 0;
    for page in documents() {
        for link in read(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            links += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() {
                root().join(&page)
            } else {
                folder(&page).join(path)
            };
            let leads = path.exists()
                && (heading.is_empty()
                    || std::fs::read_to_string(&path)
                        .unwrap_or_default()
                        .lines()
                        .any(|line| line.starts_with('#') && anchor(line) == heading));
            if !leads {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(links > 100, "only {links} links were found");
    assert!(broken.is_empty(), "links to nowhere:\n{}", broken.join("\n"));
}

/// What a page names between backquotes as a file or folder of the tree: below one of its folders, or as the end of a
/// path: `lane/send.rs`, and in the architecture `lane/`. With each, whether it is a path from the root.
fn named_paths(page: &str) -> Vec<(String, bool)> {
    const FOLDERS: [&str; 13] = [
        "chain",
        "wal",
        "topic",
        "broker",
        "bridge",
        "src",
        "docs",
        "tests",
        "benches",
        "config",
        "dashboards",
        "firmware",
        "fuzz",
    ];
    let mut found = vec![];
    let text = read(page);
    for word in text.lines().flat_map(quoted) {
        let is_path = !word.contains([' ', '<', '$', '=', ':', '#', '*', '"']);
        let below = word
            .split_once('/')
            .is_some_and(|(first, rest)| FOLDERS.contains(&first) && !rest.is_empty());
        let is_end = (word.ends_with(".rs") && word.len() > 3) || (word.ends_with('/') && word.len() > 1 && page == ARCHITECTURE);
        if is_path && (below || is_end) {
            found.extend(expanded(word).into_iter().map(|path| (path, below)));
        }
    }
    found
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, (inside, after))) = path
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![path.to_owned()];
    };
    inside.split(',').map(|one| format!("{before}{one}{after}")).collect()
}

/// `docs/decisions/0003` may be any file that begins so.
#[test]
fn each_path_that_a_page_names_exists() {
    let all = files("", &[""]);
    let mut missing = vec![];
    let mut named = 0;
    for page in documents() {
        for (path, is_whole) in named_paths(&page) {
            named += 1;
            let path = path.trim_end_matches('/');
            let begins = |folder: &Path| {
                std::fs::read_dir(folder).is_ok_and(|mut entries| {
                    let start = path.rsplit('/').next().unwrap();
                    entries.any(|entry| entry.unwrap().file_name().to_str().unwrap().starts_with(&format!("{start}-")))
                })
            };
            let exists = root().join(path).exists()
                || folder(&page).join(path).exists()
                || (!is_whole && all.iter().any(|file| format!("/{file}/").contains(&format!("/{path}/"))))
                || (path.starts_with("docs/decisions/") && begins(&root().join("docs/decisions")));
            if !exists {
                missing.push(format!("{page}: {path}"));
            }
        }
    }
    assert!(named > 100, "only {named} paths were found");
    assert!(missing.is_empty(), "paths that are not in the tree:\n{}", missing.join("\n"));
}

#[test]
fn the_table_of_contents_has_every_page() {
    let contents = read("docs/README.md");
    for page in files("docs", &[".md"]) {
        let link = page.trim_start_matches("docs/");
        let has_an_index = ["runbooks/", "decisions/", "README.md"].iter().any(|start| link.starts_with(start));
        let is_listed = has_an_index || contents.contains(&format!("({link})"));
        assert!(is_listed, "docs/README.md does not list {page}");
    }
}

/// What code says of the pages: `docs/` and what follows, up to the end of the name.
fn cited_pages(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    text.match_indices("docs/")
        .filter(|(at, _)| !text[..*at].ends_with(is_part) || text[..*at].ends_with("../"))
        .map(|(at, _)| &text[at..])
        .map(|rest| &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())])
        .map(|path| path.trim_end_matches(['.', '/']))
        .collect()
}

#[test]
fn each_page_that_the_code_cites_exists() {
    let mut missing = vec![];
    let mut cited = 0;
    for file in files("", &[".rs", ".toml", ".yml", ".yaml", ".py"]) {
        let text = read(&file);
        for page in cited_pages(&text) {
            cited += 1;
            let decision = page.strip_prefix("docs/decisions/").is_some_and(|number| number.len() == 4);
            let exists =
                root().join(page).exists() || (decision && files("docs/decisions", &[".md"]).iter().any(|file| file.starts_with(page)));
            if !exists {
                missing.push(format!("{file}: {page}"));
            }
        }
        for document in ["design section", "of the design", "contract section"] {
            if text.contains(document) && !file.starts_with("tests/documents/") {
                missing.push(format!("{file}: \"{document}\", a document that is not in the tree"));
            }
        }
    }
    assert!(cited > 50, "only {cited} citations were found");
    assert!(missing.is_empty(), "pages that are not in the tree:\n{}", missing.join("\n"));
}
