//! What a person changes in the log: dead letters put back or dropped, settled records sent again.

use forebay_wal::{Log, Offset, Requeued, StreamId};
use serde::{Deserialize, Serialize};

/// So many in one request.
pub(crate) const MAX_AT_ONCE: usize = 1000;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Dead letters are put back.
    Requeue(Numbers),
    /// Dead letters go for good.
    Drop(Numbers),
    /// Settled records are sent again.
    Replay(Numbers),
    /// The last trusted time is forgotten.
    ForgetTime,
}

/// Which ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Numbers {
    /// The stream, for records.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) stream: Option<String>,
    /// The numbers of dead letters, or the offsets of records.
    pub(crate) numbers: Vec<u64>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// How many.
    pub(crate) changed: u64,
    /// What stays as it was.
    pub(crate) kept: Vec<KeptLine>,
}

/// What stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptLine {
    /// Its number or offset.
    pub(crate) number: u64,
    /// A stable word: `not-found`, `damaged`, `waiting`, `stream-gone`, `stream-full`.
    pub(crate) reason: String,
}

/// Does it. Blocks on the disk.
///
/// # Errors
/// Why it could not be done, in words.
pub(crate) fn change(log: &Log, change: &Change) -> Result<Changed, String> {
    let offsets = |numbers: &Numbers| numbers.numbers.iter().copied().map(Offset).collect::<Vec<_>>();
    let done = match change {
        Change::Requeue(numbers) => log.requeue(&offsets(numbers)).map(Changed::from),
        Change::Drop(numbers) => log
            .drop_dead(&offsets(numbers))
            .map(|changed| Changed { changed, kept: Vec::new() }),
        Change::Replay(numbers) => log.replay(stream(log, numbers)?, &offsets(numbers)).map(Changed::from),
        Change::ForgetTime => log.forget_trusted_time().map(|forgotten| Changed {
            changed: u64::from(forgotten),
            kept: Vec::new(),
        }),
    };
    done.map_err(|error| error.to_string())
}

fn stream(log: &Log, numbers: &Numbers) -> Result<StreamId, String> {
    let name = numbers.stream.as_deref().unwrap_or_default();
    log.stream(name)
        .ok_or_else(|| format!("there is no stream `{name}` in the configuration"))
}

impl From<Requeued> for Changed {
    fn from(requeued: Requeued) -> Self {
        let kept = requeued.kept.into_iter().map(|(offset, reason)| KeptLine {
            number: offset.0,
            reason: reason.to_owned(),
        });
        Self {
            changed: requeued.requeued,
            kept: kept.collect(),
        }
    }
}
