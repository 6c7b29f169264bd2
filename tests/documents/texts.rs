//! The texts in the program: string literals, and the comments that clap shows as help.

/// A text and the line on which it begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// The string literals of a source, and its doc comments if it makes a command line of them. Unit tests at its end are
/// left out.
pub(crate) fn texts(source: &str) -> Vec<Text> {
    let end = source.find("#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let source = &source[..end];
    let mut found = literals(source);
    if source.contains("clap") {
        for (number, line) in source.lines().enumerate() {
            if let Some(text) = line.trim_start().strip_prefix("///") {
                found.push(Text {
                    line: number + 1,
                    text: text.to_owned(),
                });
            }
        }
    }
    found
}

/// The string literals of a source. A line that ends in a backslash goes on with the next one.
fn literals(source: &str) -> Vec<Text> {
    let mut found = vec![];
    let mut rest = source;
    while let Some(at) = rest.find(['"', '/', '\'', 'r']) {
        let line = 1 + source[..source.len() - rest.len() + at].matches('\n').count();
        let is_word = rest[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let here = &rest[at..];
        let hashes = here[1..].len() - here[1..].trim_start_matches('#').len();
        if here.starts_with("//") {
            rest = here.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(inside) = here.strip_prefix('"') {
            let (text, after) = quoted(inside);
            found.push(Text { line, text });
            rest = after;
        } else if here.starts_with('r') && !is_word && here[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let (text, after) = here[2 + hashes..].split_once(&close).unwrap_or((&here[2 + hashes..], ""));
            found.push(Text {
                line,
                text: text.to_owned(),
            });
            rest = after;
        } else if here.starts_with('\'') {
            rest = &here[character(here)..];
        } else {
            rest = &here[1..];
        }
    }
    found
}

/// A literal from behind its opening quote: its text, and what follows it.
fn quoted(inside: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = inside;
    while let Some(at) = rest.find(['"', '\\']) {
        text.push_str(&rest[..at]);
        let here = &rest[at..];
        if let Some(after) = here.strip_prefix('"') {
            return (text, after);
        }
        let escaped = here[1..].chars().next().unwrap_or(' ');
        let after = &here[1 + escaped.len_utf8().min(here.len() - 1)..];
        rest = if escaped == '\n' { after.trim_start() } else { after };
        match escaped {
            '\n' => {}
            'n' => text.push('\n'),
            other => text.push(other),
        }
    }
    (text, "")
}

/// The length of a character literal, or of the quote of a lifetime.
fn character(here: &str) -> usize {
    let mut chars = here.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => here[2..]
            .char_indices()
            .skip(1)
            .find(|(_, c)| *c == '\'')
            .map_or(1, |(at, _)| at + 3),
        Some((at, c)) if here[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 1,
    }
}

#[test]
fn literals_are_found_and_comments_characters_and_lifetimes_are_not() {
    let source = r##"
fn a<'a>(x: &'a str) -> char { // "no"
    let _ = "one \"two\" \
             three\nfour";
    let _ = ('"', '\'', '\u{fffd}', "five", b'"');
    let _ = (r"si\x", r#"se"ven"#, for_r, "");
}
"##;
    let texts: Vec<_> = literals(source).into_iter().map(|text| (text.line, text.text)).collect();
    let expected = [(3, "one \"two\" three\nfour"), (5, "five"), (6, "si\\x"), (6, "se\"ven"), (6, "")];
    assert_eq!(texts, expected.map(|(line, text)| (line, text.to_owned())));
}

#[test]
fn help_is_a_text_and_unit_tests_are_none() {
    let source = "use clap::Parser;\n/// Says so\nstruct A;\n#[cfg(test)]\nmod tests { const A: &str = \"no\"; }\n";
    let expected = Text {
        line: 2,
        text: " Says so".to_owned(),
    };
    assert_eq!(texts(source), [expected]);
}
