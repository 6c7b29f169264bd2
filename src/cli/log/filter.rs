//! Which records and dead letters a command means.

use forebay_topic::TopicFilter;

use crate::inspect::{RecordLine, Selection, State, moment};

/// Which records; filters of different kinds must all agree.
#[derive(Debug, Default, clap::Args)]
pub(super) struct FilterArgs {
    /// Only this stream; repeat for more
    #[arg(long, value_name = "NAME")]
    pub(super) stream: Vec<String>,
    /// Only topics that match, + and # included
    #[arg(long, value_name = "FILTER")]
    pub(super) topic: Option<TopicFilter>,
    /// Only from this device; repeat for more
    #[arg(long, value_name = "IDENTITY")]
    pub(super) identity: Vec<String>,
    /// Received at this time or later: 2h (ago), 2026-11-26, 2026-11-26T20:40:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<u64>,
    /// Received before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<u64>,
    /// Only records in this state: waiting, suspended or settled
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub(super) state: Vec<State>,
}

/// Which dead letters; filters of different kinds must all agree.
#[derive(Debug, clap::Args)]
pub(super) struct LetterArgs {
    /// Only from this stream; repeat for more
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// Only topics that match, + and # included
    #[arg(long, value_name = "FILTER")]
    topic: Option<TopicFilter>,
    /// Only from this device; repeat for more
    #[arg(long, value_name = "IDENTITY")]
    identity: Vec<String>,
    /// Only with this reason; repeat for more
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// Received at this time or later: 2h (ago), 2026-11-26, 2026-11-26T20:40:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Received before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
}

impl FilterArgs {
    pub(super) fn selection(&self) -> Selection {
        Selection {
            streams: self.stream.clone(),
            topic: self.topic.clone(),
            identities: self.identity.clone(),
            since: self.since,
            until: self.until,
            states: self.state.clone(),
            ..Selection::default()
        }
    }
}

impl LetterArgs {
    pub(super) fn selection(&self) -> Selection {
        Selection {
            streams: self.stream.clone(),
            topic: self.topic.clone(),
            identities: self.identity.clone(),
            reasons: self.reason.clone(),
            since: self.since,
            until: self.until,
            ..Selection::default()
        }
    }
}

/// Whether a letter is the one that was named.
pub(super) fn is_named(letter: &RecordLine, name: &str) -> bool {
    letter.id.as_deref() == Some(name) || letter.letter.is_some_and(|number| number.to_string() == name)
}

fn time(text: &str) -> Result<u64, String> {
    moment(text, forebay_wal::wall_clock())
}
