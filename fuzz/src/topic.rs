//! Topic filters and templates: two filters, a topic and a template, one on each line.

use forebay_topic::{Captures, Template, TopicFilter, Values, validate_name};

/// 1. Nothing panics.
/// 2. What the wildcards captured, put in their places, is the topic.
/// 3. `covers` and `overlaps` agree with `matches`.
/// 4. A template that fits its filter renders for every topic that matches.
pub(crate) fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (first, second, topic, template) = (line(), line(), line(), line());
    let template = Template::parse(template);
    let Ok(first) = TopicFilter::parse(first) else { return };
    let is_name = validate_name(topic).is_ok();
    let captures = first.captures(topic);
    assert_eq!(captures.is_some(), first.matches(topic), "{first} and {topic}");
    if let Some(captures) = captures.filter(|_| is_name) {
        let filled = fill(&first, &captures);
        assert!(
            filled == topic || filled.strip_suffix('/') == Some(topic),
            "{first} captured {captures:?} of {topic}: {filled}"
        );
        if let Ok(template) = &template
            && template.check(&first).is_ok()
        {
            let values = Values {
                gateway: "plant-7",
                device: "board-1",
                topic,
                captures: &captures,
            };
            assert_eq!(template.render(&values), template.render(&values));
        }
    }
    if let Ok(second) = TopicFilter::parse(second) {
        pair(&first, &second, topic, is_name);
    }
}

/// The filter with what its wildcards stood for.
fn fill(filter: &TopicFilter, captures: &Captures<'_>) -> String {
    let mut plus = captures.levels.iter();
    let levels: Vec<&str> = filter
        .as_str()
        .split('/')
        .map(|level| match level {
            "+" => plus.next().copied().expect("each `+` captured something"),
            "#" => captures.tail.expect("`#` captured something"),
            level => level,
        })
        .collect();
    assert_eq!(plus.next(), None, "more was captured than there are wildcards");
    levels.join("/")
}

fn pair(first: &TopicFilter, second: &TopicFilter, topic: &str, is_name: bool) {
    assert!(first.covers(first) && first.overlaps(first), "{first} and itself");
    assert_eq!(first.overlaps(second), second.overlaps(first), "{first} and {second}");
    if first.covers(second) {
        assert!(first.overlaps(second), "{first} covers {second}");
    }
    if !is_name {
        return;
    }
    let (one, other) = (first.matches(topic), second.matches(topic));
    if one && other {
        assert!(first.overlaps(second), "{topic} matches {first} and {second}");
    }
    if other && first.covers(second) {
        assert!(one, "{first} covers {second}, and does not match {topic}");
    }
}
