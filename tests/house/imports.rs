//! What a Rust source file names of its own crate. No full parser: words, paths and braces are enough.

/// The paths of a file, and the modules of it that are compiled for tests only.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Imports {
    /// Paths that begin with `crate`, `self` or `super`, and all of `use` declarations; each in its segments.
    pub(crate) paths: Vec<Vec<String>>,
    /// Names of the modules under `#[cfg(test)]` that stand in files of their own.
    pub(crate) test_modules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Path,
    Other(char),
}

/// Reads a file. What stands in `#[cfg(test)] mod name { ... }` is left out.
pub(crate) fn read(source: &str) -> Imports {
    let tokens = tokens(source);
    let mut imports = Imports::default();
    let mut at = 0;
    while at < tokens.len() {
        if let Some((name, behind)) = test_module(&tokens[at..]) {
            at += behind;
            if tokens.get(at) == Some(&Token::Other('{')) {
                at = behind_braces(&tokens, at);
            } else {
                imports.test_modules.push(name);
            }
            continue;
        }
        match &tokens[at] {
            Token::Word(word) if word == "use" => at = tree(&tokens, at + 1, &[], &mut imports.paths),
            Token::Word(word) if matches!(word.as_str(), "crate" | "self" | "super") && tokens.get(at + 1) == Some(&Token::Path) => {
                at = tree(&tokens, at, &[], &mut imports.paths);
            }
            _ => at += 1,
        }
    }
    imports
}

/// The name of a module under `#[cfg(test)]` that begins here, and how far its name's end is.
fn test_module(tokens: &[Token]) -> Option<(String, usize)> {
    let words = ["#", "[", "cfg", "(", "test", ")", "]"];
    let is_test = words.len() <= tokens.len() && words.iter().zip(tokens).all(|(word, token)| is(token, word));
    let mut at = words.len();
    if !is_test {
        return None;
    }
    // Other attributes may follow.
    while is(tokens.get(at)?, "#") {
        at += tokens[at..].iter().position(|token| is(token, "]"))? + 1;
    }
    while !is(tokens.get(at)?, "mod") {
        let is_visibility = ["pub", "(", "crate", ")"].iter().any(|word| is(&tokens[at], word));
        if !is_visibility {
            return None;
        }
        at += 1;
    }
    match tokens.get(at + 1)? {
        Token::Word(name) => Some((name.clone(), at + 2)),
        _ => None,
    }
}

fn is(token: &Token, text: &str) -> bool {
    match token {
        Token::Word(word) => word == text,
        Token::Path => text == "::",
        Token::Other(sign) => text.len() == sign.len_utf8() && text.starts_with(*sign),
    }
}

fn behind_braces(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (nth, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Other('{') => depth += 1,
            Token::Other('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return nth + 1;
        }
    }
    tokens.len()
}

/// Takes the paths of a tree such as `a::{b, c::d}` that begins at `at`; gives what is behind it.
fn tree(tokens: &[Token], mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at) {
            Some(Token::Word(word)) => path.push(word.clone()),
            Some(Token::Other('*')) => path.push("*".into()),
            Some(Token::Other('{')) => {
                at += 1;
                while at < tokens.len() && tokens[at] != Token::Other('}') {
                    // An empty or odd branch must not hold the reader up.
                    at = tree(tokens, at, &path, paths).max(at + 1);
                    if tokens.get(at) == Some(&Token::Other(',')) {
                        at += 1;
                    }
                }
                return at + 1;
            }
            // Type arguments end the path.
            _ => break,
        }
        at += 1;
        if tokens.get(at) != Some(&Token::Path) {
            break;
        }
        at += 1;
    }
    // `as name` renames nothing that counts here.
    if tokens.get(at) == Some(&Token::Word("as".into())) {
        at += 2;
    }
    paths.push(path);
    at
}

/// Words and signs; comments, texts and characters are left out.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = blank(rest);
        if skipped > 0 {
            rest = &rest[skipped..];
        } else if let Some(after) = rest.strip_prefix("::") {
            tokens.push(Token::Path);
            rest = after;
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].into()));
            rest = &rest[end..];
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Other(first));
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    tokens
}

/// Bytes of the comment, text or character that begins here; 0 = none does.
fn blank(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let raw = rest.trim_start_matches('b');
    let prefix = rest.len() - raw.len();
    if prefix < 2
        && let Some(hashes) = raw.strip_prefix('r').map(|after| after.len() - after.trim_start_matches('#').len())
        && raw[1 + hashes..].starts_with('"')
    {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = prefix + hashes + 2;
        return rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    // A quote is a character's when another follows it, and else a lifetime's.
    let mut signs = rest.chars();
    match (signs.next(), signs.next(), signs.next()) {
        (Some('\''), Some('\\'), _) | (Some('\''), Some(_), Some('\'')) => quoted(rest, '\''),
        _ => 0,
    }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, sign) in rest.char_indices().skip(1) {
        if sign == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = sign == '\\' && !is_escaped;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::read;

    fn paths(source: &str) -> Vec<String> {
        read(source).paths.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn trees_are_taken_apart() {
        assert_eq!(
            paths("use crate::a::{self, b::{C, D as E}, f::*};\npub(crate) use super::g;\nuse std::io;"),
            [
                "crate::a::self",
                "crate::a::b::C",
                "crate::a::b::D",
                "crate::a::f::*",
                "super::g",
                "std::io"
            ]
        );
        assert_eq!(paths("use crate::{\n    a::B,\n    c,\n};"), ["crate::a::B", "crate::c"]);
    }

    #[test]
    fn paths_in_code_count() {
        assert_eq!(
            paths("fn f(x: &crate::a::B) -> u8 { super::c::d::<u8>(x); self.e() }"),
            ["crate::a::B", "super::c::d"]
        );
    }

    #[test]
    fn comments_and_texts_do_not() {
        assert_eq!(
            paths(
                "// use crate::a;\n/* crate::b */ let s = \"crate::c \\\" crate::d\"; let r = r#\"crate::e\"#; let c = '\"'; use crate::f;"
            ),
            ["crate::f"]
        );
        assert_eq!(paths("fn f<'a>(x: &'a str) -> &'a str { crate::g::h(x) }"), ["crate::g::h"]);
    }

    #[test]
    fn test_modules_are_left_out() {
        let found =
            read("use crate::a;\n#[cfg(test)]\n#[allow(x)]\nmod tests { use crate::b; fn f() {} }\n#[cfg(test)]\nmod sim;\nuse crate::c;");
        assert_eq!(found.paths, [["crate", "a"], ["crate", "c"]]);
        assert_eq!(found.test_modules, ["sim"]);
    }
}
