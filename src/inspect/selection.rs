//! Which records are meant: from a command's arguments to a query string and back, and the test itself.

use std::time::{SystemTime, UNIX_EPOCH};

use forebay_topic::TopicFilter;
use forebay_wal::{Candidate, Inspector, RecordState, StreamReport};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::State;

/// Which records match; an empty filter matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Names of streams; if empty, all that are not internal.
    pub(crate) streams: Vec<String>,
    /// A filter on the topic as published.
    pub(crate) topic: Option<TopicFilter>,
    /// Publishers.
    pub(crate) identities: Vec<String>,
    /// Received at this moment or later, milliseconds since 1970.
    pub(crate) since: Option<u64>,
    /// Received before this moment.
    pub(crate) until: Option<u64>,
    /// How they stand.
    pub(crate) states: Vec<State>,
    /// Reasons of dead letters.
    pub(crate) reasons: Vec<String>,
    /// From this offset on.
    pub(crate) from: Option<u64>,
    /// So many at most.
    pub(crate) limit: Option<u64>,
    /// Without copies that were put back while their first one is still there.
    pub(crate) originals: bool,
}

impl Selection {
    /// Whether a record is meant, apart from its stream.
    pub(crate) fn wants(&self, candidate: &Candidate<'_>) -> bool {
        let state = match candidate.state {
            RecordState::Waiting => State::Waiting,
            RecordState::Suspended => State::Suspended,
            RecordState::Settled => State::Settled,
        };
        let at = candidate.received.wall_ms;
        (self.states.is_empty() || self.states.contains(&state)) && self.is_within(at) && self.names(candidate)
    }

    /// As [`Selection::wants`], for dead letters, which all stand alike.
    pub(crate) fn wants_letter(&self, candidate: &Candidate<'_>) -> bool {
        candidate.state != RecordState::Settled && self.is_within(candidate.received.wall_ms) && self.names(candidate)
    }

    fn is_within(&self, at: u64) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    fn names(&self, candidate: &Candidate<'_>) -> bool {
        (self.identities.is_empty() || self.identities.iter().any(|identity| identity == candidate.identity))
            && self.topic.as_ref().is_none_or(|topic| topic.matches(candidate.topic))
    }

    /// The streams that are meant.
    ///
    /// # Errors
    /// A stream that the log does not have.
    pub(crate) fn streams(&self, inspector: &Inspector) -> Result<Vec<StreamReport>, String> {
        let all: Vec<_> = inspector.streams().into_iter().filter(|stream| !stream.internal).collect();
        if let Some(unknown) = self.streams.iter().find(|name| all.iter().all(|stream| stream.name != **name)) {
            let names: Vec<_> = all.iter().map(|stream| stream.name.as_str()).collect();
            return Err(format!("the log has no stream `{unknown}`; it has {}", names.join(", ")));
        }
        Ok(all
            .into_iter()
            .filter(|stream| self.streams.is_empty() || self.streams.contains(&stream.name))
            .collect())
    }

    /// Whether a dead letter is meant by its stream and reason.
    pub(crate) fn takes(&self, stream: &str, reason: &str) -> bool {
        (self.streams.is_empty() || self.streams.iter().any(|name| name == stream))
            && (self.reasons.is_empty() || self.reasons.iter().any(|wanted| wanted == reason))
    }

    /// As a query string.
    pub(crate) fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for stream in &self.streams {
            query.append_pair("stream", stream);
        }
        if let Some(topic) = &self.topic {
            query.append_pair("topic", topic.as_str());
        }
        for identity in &self.identities {
            query.append_pair("identity", identity);
        }
        for state in &self.states {
            query.append_pair("state", state_name(*state));
        }
        for reason in &self.reasons {
            query.append_pair("reason", reason);
        }
        if self.originals {
            query.append_pair("originals", "true");
        }
        let numbers = [("from", self.from), ("limit", self.limit)];
        let times = [("since", self.since), ("until", self.until)];
        for (key, value) in numbers.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            query.append_pair(key, &value.to_string());
        }
        for (key, value) in times.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            query.append_pair(key, &super::wall(value));
        }
        query.finish()
    }

    /// From a query string; gives what is not a filter as it is.
    ///
    /// # Errors
    /// The first pair that cannot be.
    pub(crate) fn parse(query: &str) -> Result<(Self, Vec<(String, String)>), String> {
        let mut selection = Self::default();
        let mut others = Vec::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let number = || value.parse().map_err(|_| format!("{key}={value}: must be a number"));
            let time = || moment(&value, forebay_wal::wall_clock()).map_err(|reason| format!("{key}={value}: {reason}"));
            match key.as_ref() {
                "stream" => selection.streams.push(value.into_owned()),
                "topic" => selection.topic = Some(value.parse().map_err(|error| format!("topic={value}: {error}"))?),
                "identity" => selection.identities.push(value.into_owned()),
                "since" => selection.since = Some(time()?),
                "until" => selection.until = Some(time()?),
                "state" => selection.states.push(state(&value)?),
                "reason" => selection.reasons.push(value.into_owned()),
                "from" => selection.from = Some(number()?),
                "limit" => selection.limit = Some(number()?),
                "originals" => selection.originals = value == "true",
                _ => others.push((key.into_owned(), value.into_owned())),
            }
        }
        Ok((selection, others))
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Suspended => "suspended",
        State::Settled => "settled",
        State::Damaged => "damaged",
        State::Unknown => "unknown",
    }
}

fn state(text: &str) -> Result<State, String> {
    match text {
        "waiting" => Ok(State::Waiting),
        "suspended" => Ok(State::Suspended),
        "settled" => Ok(State::Settled),
        _ => Err(format!("state={text}: must be waiting, suspended or settled")),
    }
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        state(text)
    }
}

/// A moment as milliseconds since 1970: RFC 3339, a date, or how long ago.
///
/// # Errors
/// What it must look like.
pub(crate) fn moment(text: &str, now: SystemTime) -> Result<u64, String> {
    if let Ok(ago) = crate::config::duration(text) {
        let then = now.checked_sub(ago).unwrap_or(UNIX_EPOCH);
        return Ok(then.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64);
    }
    let whole = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    let moment = OffsetDateTime::parse(&whole, &Rfc3339)
        .map_err(|_| format!("`{text}` is not a time such as 2026-11-26T20:40:00Z, 2026-11-26, or 2h for two hours ago"))?;
    u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).map_err(|_| format!("`{text}` lies before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_survives_its_query_string() {
        let selection = Selection {
            streams: vec!["telemetry".into(), "a&b=c".into()],
            topic: Some("devices/+/te mp/#".parse().unwrap()),
            identities: vec!["gerät 7/%".into()],
            since: Some(1_700_000_000_123),
            until: Some(1_800_000_000_000),
            states: vec![State::Waiting, State::Suspended],
            reasons: vec!["no-route".into()],
            from: Some(17),
            limit: Some(3),
            originals: true,
        };
        let (back, others) = Selection::parse(&format!("{}&follow=true", selection.query())).unwrap();
        assert_eq!((back, others), (selection, vec![("follow".into(), "true".into())]));
        for wrong in ["since=yesterday", "from=x", "state=lost", "topic=a/%23/b"] {
            assert!(Selection::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_a_time_a_date_or_how_long_ago() {
        let now = UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
        assert_eq!(moment("2h", now), Ok(1_800_000_000_000 - 7_200_000));
        assert_eq!(moment("2026-11-26", now), Ok(1_795_651_200_000));
        assert_eq!(moment("2026-11-26T01:00:00.5+01:00", now), Ok(1_795_651_200_500));
        assert!(moment("noon", now).is_err() && moment("1960-01-01", now).is_err());
    }
}
