//! `state.redb`: the checkpoint of what the stream `local` says of sessions and retained messages.

mod file;

pub(crate) use file::StateFile;
