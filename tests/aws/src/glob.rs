//! Policy wildcards: `*` matches any run of characters, `?` one; `+` and `#` are letters like any other.

/// Whether `text` matches `pattern` as an IoT policy resource does.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p + 1, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after_star, start)) = retry {
            retry = Some((after_star, start + 1));
            p = after_star;
            t = start + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_spans_levels_and_mqtt_wildcards_are_literal() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("dt/*", "dt/a/b", true),
            ("dt/*/x", "dt/a/b/x", true),
            ("dt/*/x", "dt/a/b/y", false),
            ("dt/?", "dt/a", true),
            ("dt/?", "dt/ab", false),
            ("dt/#", "dt/a", false),
            ("dt/+", "dt/+", true),
            ("a*b*c", "aXbYbZc", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }
}
