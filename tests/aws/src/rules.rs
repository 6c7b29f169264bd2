//! What AWS demands of a publish, as one pure function: the table A.3 of the service's rules.

use crate::{
    config::{Limits, Qos2, Switches, Undeliverable},
    decode::Version,
    policy::Policy,
};

/// What becomes of a publish.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    /// PUBACK with a code; the link stays.
    Answer {
        code: u8,
        why: String,
    },
    /// The connection ends, on MQTT 5 with this DISCONNECT.
    End {
        code: u8,
        why: String,
    },
    /// Dropped without an answer.
    Silence {
        why: String,
    },
    /// Not allowed by policy: PUBACK 0x87, or the end.
    Denied,
}

/// The parts of a publish the rules look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged<'a> {
    pub(crate) version: Version,
    pub(crate) topic: &'a str,
    pub(crate) payload: usize,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
}

/// Judges a publish by the limits, the reserved topics and the policy, in this order.
pub(crate) fn judge(publish: Judged<'_>, limits: &Limits, switches: &Switches, policy: &Policy) -> Verdict {
    if publish.qos > 1 {
        let why = "QoS 2 is not supported".to_owned();
        return match switches.qos2 {
            Qos2::Disconnect => Verdict::End { code: 0x9B, why },
            Qos2::Silence => Verdict::Silence { why },
        };
    }
    if publish.topic.is_empty() || publish.topic.contains(['+', '#', '\0']) {
        return Verdict::End {
            code: 0x90,
            why: format!("topic {:?} is no topic name", publish.topic),
        };
    }
    if publish.payload > limits.payload {
        // AWS lists no code for it; 0x95 is what MQTT 5 has for "too large", 0x99 is not on its list either.
        return undeliverable(
            publish,
            switches,
            0x95,
            format!("payload of {} bytes, the limit is {}", publish.payload, limits.payload),
        );
    }
    let counted = match rule_remainder(publish.topic) {
        Some(Ok(remainder)) => remainder,
        Some(Err(why)) => return undeliverable(publish, switches, 0x90, why),
        None => publish.topic,
    };
    if counted.len() > limits.topic {
        return undeliverable(
            publish,
            switches,
            0x90,
            format!("topic of {} bytes, the limit is {}", counted.len(), limits.topic),
        );
    }
    let slashes = counted.bytes().filter(|&byte| byte == b'/').count();
    if slashes > limits.slashes {
        return undeliverable(
            publish,
            switches,
            0x90,
            format!("topic with {slashes} slashes, the limit is {}", limits.slashes),
        );
    }
    if publish.topic.starts_with('$') {
        let known = ["$aws/rules/", "$aws/things/", "$aws/certificates/", "$aws/provisioning-templates/"];
        if !known.iter().any(|prefix| publish.topic.starts_with(prefix)) {
            return undeliverable(publish, switches, 0x90, format!("topic {:?} is reserved", publish.topic));
        }
        if publish.retain {
            return undeliverable(publish, switches, 0x90, format!("RETAIN on the reserved topic {:?}", publish.topic));
        }
    }
    if !policy.may_publish(publish.topic) {
        return Verdict::Denied;
    }
    Verdict::Accept
}

fn undeliverable(publish: Judged<'_>, switches: &Switches, code: u8, why: String) -> Verdict {
    let answer = publish.version == Version::V5 && publish.qos == 1 && switches.undeliverable == Undeliverable::Puback;
    if answer {
        Verdict::Answer {
            code: if code == 0x95 { 0x80 } else { code },
            why,
        }
    } else {
        Verdict::End { code, why }
    }
}

/// For a Basic Ingest topic, what counts towards the limits, or why its rule name is none.
fn rule_remainder(topic: &str) -> Option<Result<&str, String>> {
    let rest = topic.strip_prefix("$aws/rules/")?;
    let (rule, remainder) = rest.split_once('/').unwrap_or((rest, ""));
    let valid = (1..=128).contains(&rule.len()) && rule.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    Some(if valid {
        Ok(remainder)
    } else {
        Err(format!("{rule:?} is no rule name"))
    })
}

/// Whether an MQTT filter matches a topic. As at AWS `a/#` does not match `a`, and `$` topics match no leading wildcard.
pub(crate) fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), Some(_)) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// Why a topic filter cannot be subscribed to, if so: the SUBACK code.
pub(crate) fn filter_refused(filter: &str, limits: &Limits) -> Option<u8> {
    let levels: Vec<&str> = filter.split('/').collect();
    let last = levels.len() - 1;
    let misplaced = levels
        .iter()
        .enumerate()
        .any(|(index, level)| (level.contains('#') && (*level != "#" || index != last)) || (level.contains('+') && *level != "+"));
    if filter.is_empty() || filter.contains('\0') || misplaced || filter.len() > limits.topic || last > limits.slashes {
        return Some(0x8F);
    }
    // Shared subscriptions are not built: a test that needs them would otherwise see every member served.
    filter.starts_with("$share/").then_some(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(version: Version, topic: &str, payload: usize, qos: u8, retain: bool) -> Verdict {
        let policy = Policy {
            deny: vec!["denied/*".into()],
            ..Policy::allow_all()
        };
        judge(
            Judged {
                version,
                topic,
                payload,
                qos,
                retain,
            },
            &Limits::default(),
            &Switches::default(),
            &policy,
        )
    }

    #[test]
    fn each_row_of_the_publish_rules_has_its_version_specific_outcome() {
        let topic_256 = "t".repeat(256);
        let topic_257 = "t".repeat(257);
        let rule_256 = format!("$aws/rules/my_rule/{topic_256}");
        let rule_257 = format!("$aws/rules/my_rule/{topic_257}");
        let end = |code| (Some(code), true);
        let answer = |code| (Some(code), false);
        let fine = (None, false);
        // topic, payload, qos, retain, on 3.1.1, on 5
        let rows = [
            ("a/b", 131_072, 1, false, fine, fine),
            ("a/b", 131_073, 1, false, end(0x95), answer(0x80)),
            ("a/b", 131_073, 0, false, end(0x95), end(0x95)),
            ("a/b", 0, 0, true, fine, fine),
            ("a/b", 0, 2, false, end(0x9B), end(0x9B)),
            (&topic_256, 0, 1, false, fine, fine),
            (&topic_257, 0, 1, false, end(0x90), answer(0x90)),
            (&rule_256, 0, 1, false, fine, fine),
            (&rule_257, 0, 1, false, end(0x90), answer(0x90)),
            ("a/b/c/d/e/f/g/h", 0, 1, false, fine, fine),
            ("a/b/c/d/e/f/g/h/i", 0, 1, false, end(0x90), answer(0x90)),
            ("$aws/rules/r/a/b/c/d/e/f/g/h", 0, 1, false, fine, fine),
            ("$aws/rules/r-1/a", 0, 1, false, end(0x90), answer(0x90)),
            ("$aws/foo", 0, 1, false, end(0x90), answer(0x90)),
            ("$aws/foo", 0, 0, false, end(0x90), end(0x90)),
            ("$SYS/x", 0, 1, false, end(0x90), answer(0x90)),
            ("$aws/things/t/shadow/update", 0, 1, true, end(0x90), answer(0x90)),
            ("a/+", 0, 1, false, end(0x90), end(0x90)),
            ("", 0, 1, false, end(0x90), end(0x90)),
        ];
        for (topic, payload, qos, retain, on_311, on_5) in rows {
            for (version, expected) in [(Version::V311, on_311), (Version::V5, on_5)] {
                let outcome = match verdict(version, topic, payload, qos, retain) {
                    Verdict::Accept => fine,
                    Verdict::Answer { code, .. } => answer(code),
                    Verdict::End { code, .. } => end(code),
                    other => panic!("{other:?}"),
                };
                assert_eq!(outcome, expected, "{version:?} {topic:?} {payload} B, QoS {qos}, retain {retain}");
            }
        }
        assert_eq!(verdict(Version::V5, "denied/x", 0, 1, false), Verdict::Denied);
    }

    #[test]
    fn filters_match_as_at_aws() {
        for (filter, topic, expected) in [
            ("a/#", "a/b", true),
            ("a/#", "a", false),
            ("#", "a", true),
            ("#", "$aws/x", false),
            ("$aws/#", "$aws/x", true),
            ("a/+/c", "a/b/c", true),
            ("a/+", "a/b/c", false),
            ("a", "a", true),
        ] {
            assert_eq!(filter_matches(filter, topic), expected, "{filter} against {topic}");
        }
        for (filter, refused) in [
            ("a/#", None),
            ("a/#/b", Some(0x8F)),
            ("a+", Some(0x8F)),
            ("", Some(0x8F)),
            ("$share/g/a", Some(0x80)),
        ] {
            assert_eq!(filter_refused(filter, &Limits::default()), refused, "{filter}");
        }
    }
}
