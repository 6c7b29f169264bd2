//! What a person may ask of the writer thread: to put records back, to drop dead letters, to forget a time.

use std::sync::mpsc::SyncSender;

use crate::record::{Offset, StreamId};

/// What became of what was to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requeued {
    /// How many records wait again.
    pub requeued: u64,
    /// What stays as it was, with a stable word for the reason: `not-found`, `damaged`, `waiting`, `stream-gone`,
    /// `stream-full`.
    pub kept: Vec<(Offset, &'static str)>,
}

/// Why nothing more was put back or dropped. What earlier commits of the same call did is done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequeueError {
    /// The log cannot write.
    #[error("the log cannot write at the moment: {reason}")]
    NotStored {
        /// The failure, in words.
        reason: String,
    },
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
}

/// Something for the writer to do.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) what: What,
    pub(crate) answer: SyncSender<Result<Requeued, RequeueError>>,
}

#[derive(Debug)]
pub(crate) enum What {
    Requeue(Vec<Offset>),
    Drop(Vec<Offset>),
    Replay(StreamId, Vec<Offset>),
    /// Of the last trusted time.
    ForgetTime,
}
