//! What has come of a peer and is not worked on yet: the beginning of a packet, or packets that must wait.
//!
//! A small packet needs no more than each connection has. The room for a larger one is charged whole, before its body is
//! read: peers that send the first halves of many packets cannot take the room that the second halves need.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncRead;

use super::chunk;
use crate::budget::{Budget, Charge, Owner, Waiting};
use crate::codec::packet_length;

/// Bytes that a connection may hold without a charge.
const FREE: usize = 4 << 10;
/// Bytes that are read while a packet is still worked on, to notice that the peer has closed.
const LOOK_AHEAD: usize = 32 << 10;
/// How often it is tried whether there is room.
pub(super) const RETRY: Duration = Duration::from_millis(100);
/// How long a peer may be silent in the middle of a large packet while others wait for room.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);
/// How often after that it is looked whether others wait.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Bytes of one connection, and what is charged for them.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) buffer: BytesMut,
    charge: Charge,
    budget: Arc<Budget>,
    /// While it is not read for want of room.
    waiting: Option<Waiting>,
}

impl Input {
    pub(super) fn new(owner: Owner, budget: &Arc<Budget>) -> Self {
        Self {
            buffer: BytesMut::new(),
            charge: budget.input_bytes.open(owner),
            budget: Arc::clone(budget),
            waiting: None,
        }
    }

    /// The same bytes, charged to another owner from now on.
    pub(super) fn owned_by(self, owner: Owner) -> Self {
        let mut input = Self::new(owner, &self.budget);
        input.buffer = self.buffer;
        input
    }

    /// Whether the packet that has begun may be read on: its room is charged, or it needs none. To be called when what is whole
    /// has been taken out.
    pub(super) fn has_room(&mut self) -> bool {
        chunk::release(&mut self.buffer);
        let length = packet_length(&self.buffer).unwrap_or(0).max(self.buffer.len());
        let needed = if length > FREE { length as u64 } else { 0 };
        let grown = self.charge.set(needed);
        let Err(exceeded) = grown else {
            self.waiting = None;
            return true;
        };
        // Who waits holds nothing: several that each held a part would wait for each other.
        self.charge.shrink(u64::MAX);
        if self.waiting.is_none() {
            self.charge.note(exceeded);
            self.waiting = Some(self.budget.wait_for_input());
        }
        false
    }

    /// Reads what is there. 0 if the peer has closed. Cancel safe.
    ///
    /// # Errors
    /// The socket's.
    pub(super) async fn read<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> io::Result<usize> {
        let is_scarce = self.charge.amount() == 0 && self.budget.is_input_scarce();
        let most = if is_scarce {
            FREE.saturating_sub(self.buffer.len()).max(1)
        } else {
            chunk::BYTES
        };
        let count = chunk::read(stream, &mut self.buffer, most).await?;
        let held = self.buffer.len() as u64;
        if held > self.charge.amount().max(FREE as u64) {
            // If there is no room for it, the packet that it begins is not read on.
            self.charge.set(held).ok();
        }
        Ok(count)
    }

    /// Whether more may be read while a packet is still worked on.
    pub(super) fn may_look_ahead(&self) -> bool {
        let most = if self.budget.is_input_scarce() { FREE } else { LOOK_AHEAD };
        self.buffer.len() < most
    }

    /// Whether it holds more than each connection has.
    pub(super) fn holds_room(&self) -> bool {
        self.charge.amount() > 0
    }

    /// Whether it holds room that others wait for.
    pub(super) fn is_in_the_way(&self) -> bool {
        self.holds_room() && self.budget.waits_for_input()
    }
}
