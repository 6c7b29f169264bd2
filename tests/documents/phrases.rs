//! Phrases that `docs/glossary.md` bans where an operator reads.

use super::texts::texts;
use super::tree::{files, pages, quoted, read};

const GLOSSARY: &str = "docs/glossary.md";

/// A phrase that is not used, and the longer ones in which its words are allowed.
struct Banned {
    phrase: String,
    except: Vec<String>,
    say: String,
}

/// The last table of the glossary.
fn banned() -> Vec<Banned> {
    let page = read(GLOSSARY);
    let (_, section) = page.split_once("## Phrases that are not used").unwrap();
    let mut found = vec![];
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let (phrases, except) = cells[1].split_once("except").unwrap_or((cells[1], ""));
        for phrase in quoted(phrases) {
            found.push(Banned {
                phrase: phrase.to_owned(),
                except: quoted(except).into_iter().map(str::to_owned).collect(),
                say: cells[3].to_owned(),
            });
        }
    }
    found
}

/// Where a text uses a phrase, as numbers of lines: whole words, in upper or lower case, over the ends of lines too.
fn uses(text: &str, banned: &Banned) -> Vec<usize> {
    let mut flat = String::new();
    let mut lines = vec![];
    for (number, line) in text.lines().enumerate() {
        for word in line.trim_start_matches([' ', '/', '!', '#', '>', '*']).split_whitespace() {
            let before = flat.len();
            flat.push_str(&word.to_lowercase());
            flat.push(' ');
            lines.extend(std::iter::repeat_n(number + 1, flat.len() - before));
        }
    }
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let whole = |at: usize, phrase: &str| !is_word(flat[..at].chars().next_back()) && !is_word(flat[at + phrase.len()..].chars().next());
    flat.match_indices(&banned.phrase)
        .filter(|(at, phrase)| whole(*at, phrase))
        .filter(|(at, _)| !banned.except.iter().any(|longer| flat[*at..].starts_with(longer.as_str())))
        .map(|(at, _)| lines[at])
        .collect()
}

/// A page without what stands between the two marks of a table of old names, line for line.
fn without_old_names(page: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in page.lines() {
        inside |= line == "<!-- old names -->";
        kept.push_str(if inside { "" } else { line });
        kept.push('\n');
        inside &= line != "<!-- end of old names -->";
    }
    kept
}

#[test]
fn no_page_uses_a_banned_phrase() {
    let banned = banned();
    assert!(banned.len() > 30, "{GLOSSARY} has another form");
    let mut found = vec![];
    for page in pages().iter().filter(|page| *page != GLOSSARY) {
        let text = without_old_names(&read(page));
        for banned in &banned {
            for line in uses(&text, banned) {
                found.push(format!("{page}:{line}: \"{}\"; say: {}", banned.phrase, banned.say));
            }
        }
    }
    assert!(found.is_empty(), "banned by {GLOSSARY}:\n{}", found.join("\n"));
}

/// Where the texts of the product are.
const SOURCES: [&str; 4] = ["src", "broker/src", "bridge/src", "wal/src"];

#[test]
fn no_text_of_the_program_uses_a_banned_phrase() {
    let banned = banned();
    let sources = SOURCES.iter().flat_map(|folder| files(folder, &[".rs"]));
    let mut found = vec![];
    let mut looked_at = 0;
    for file in sources.filter(|file| !file.contains("/tests/") && !file.ends_with("/tests.rs")) {
        for text in texts(&read(&file)) {
            looked_at += 1;
            for banned in &banned {
                for line in uses(&text.text, banned) {
                    found.push(format!(
                        "{file}:{}: \"{}\"; say: {}",
                        text.line + line - 1,
                        banned.phrase,
                        banned.say
                    ));
                }
            }
        }
    }
    assert!(looked_at > 1000, "only {looked_at} texts were found");
    assert!(found.is_empty(), "banned by {GLOSSARY}:\n{}", found.join("\n"));
}

#[test]
fn a_phrase_is_found_in_any_case_and_over_line_ends_and_only_whole() {
    let banned = |phrase: &str, except: &[&str]| Banned {
        phrase: phrase.to_owned(),
        except: except.iter().map(|word| (*word).to_owned()).collect(),
        say: String::new(),
    };
    let set_aside = banned("set aside", &[]);
    assert_eq!(uses("It is\nset\n/// Aside, and", &set_aside), [2]);
    assert_eq!(uses("offset aside, set asides, forebay_set_aside", &set_aside), [0; 0]);
    let runs_out = banned("runs out", &["runs out of"]);
    assert_eq!(uses("it runs out\nit runs out of room", &runs_out), [1]);
}
