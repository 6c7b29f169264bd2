//! For a browser: one document without anything from elsewhere, and without scripts; it fetches itself anew.

use forebay_topic::is_safe;

use super::{Line, Style};

const STYLE: &str = "body{margin:1.5em;background:#fdfdfb;color:#222}pre{font:14px/1.45 ui-monospace,monospace;white-space:pre-wrap}\
                     .bold{font-weight:bold}.dim{color:#777}.good{color:#176b2c;font-weight:bold}.warn{color:#8a5a00}.bad{color:#b3261e;font-weight:bold}\
                     @media(prefers-color-scheme:dark){body{background:#16181b;color:#ddd}.dim{color:#999}.good{color:#6fcf83}.warn{color:#e5b45a}.bad{color:#ff8a80}}";

/// The lines as a document that fetches itself anew every `seconds`.
#[must_use]
pub(crate) fn document(title: &str, lines: &[Line], seconds: u32) -> String {
    let mut body = String::new();
    for line in lines {
        for (style, piece) in line {
            let piece = escaped(piece);
            match class(*style) {
                Some(class) => body += &format!("<span class=\"{class}\">{piece}</span>"),
                None => body += &piece,
            }
        }
        body.push('\n');
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta http-equiv=\"refresh\" content=\"{seconds}\">\
         <style>{STYLE}</style></head>\n<body><pre>{body}</pre></body></html>\n",
        escaped(title)
    )
}

const fn class(style: Style) -> Option<&'static str> {
    match style {
        Style::Plain => None,
        Style::Bold => Some("bold"),
        Style::Dim => Some("dim"),
        Style::Good => Some("good"),
        Style::Warn => Some("warn"),
        Style::Bad => Some("bad"),
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c if !is_safe(c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
