//! What a TLS handshake may make the gateway keep: a message of it can have 64 KiB, and comes before anybody is known. Who is
//! silent in the middle of one while others wait for room gives way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use super::heard::Heard;
use crate::budget::{Budget, Charge, Owner, Waiting};
use crate::connection::{LOOK, SILENCE};

/// Bytes of a handshake without a charge: more than a device needs whose chain is its certificate alone.
const FREE: usize = 4 << 10;
/// Bytes that are read at once.
const STEP: usize = 4 << 10;
/// How often it is tried whether there is room.
const RETRY: Duration = Duration::from_millis(100);

/// Charges the bytes of one handshake until it is dropped. While there is no room for them they are not read.
pub(super) struct HandshakeMeter {
    charge: Charge,
    budget: Arc<Budget>,
    read: usize,
    /// Set while there is no room.
    retry: Option<Pin<Box<Sleep>>>,
    waiting: Option<Waiting>,
    /// When it is looked next whether others wait.
    look: Option<Pin<Box<Sleep>>>,
}

impl HandshakeMeter {
    pub(super) fn new(owner: Owner, budget: &Arc<Budget>) -> Self {
        Self {
            charge: budget.input_bytes.open(owner),
            budget: Arc::clone(budget),
            read: 0,
            retry: None,
            waiting: None,
            look: None,
        }
    }

    /// So many bytes were read.
    pub(super) fn took(&mut self, count: usize) {
        self.read += count;
    }

    /// How many bytes may be read now. A handshake within [`FREE`] waits for nothing. One that holds room and
    /// finds no more ends: several that each hold a part would wait for each other.
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let free = FREE.saturating_sub(self.read);
        if free > 0 {
            return Poll::Ready(Ok(free));
        }
        loop {
            if let Some(retry) = &mut self.retry {
                ready!(retry.as_mut().poll(context));
                self.retry = None;
            }
            match self.charge.set((self.read + STEP - FREE) as u64) {
                Ok(()) => {
                    self.waiting = None;
                    return Poll::Ready(Ok(STEP));
                }
                Err(exceeded) if self.charge.amount() > 0 => {
                    self.charge.note(exceeded);
                    return Poll::Ready(Err(io::Error::other(exceeded.to_string())));
                }
                Err(exceeded) => {
                    if self.waiting.is_none() {
                        self.charge.note(exceeded);
                        self.waiting = Some(self.budget.wait_for_input());
                    }
                    self.retry = Some(Box::pin(sleep(RETRY)));
                }
            }
        }
    }

    /// Ready when the peer holds room that others wait for, and has been silent for too long.
    pub(super) fn poll_in_the_way(&mut self, context: &mut Context<'_>, heard: &Heard) -> Poll<()> {
        while self.charge.amount() > 0 {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
            ready!(look.as_mut().poll(context));
            self.look = None;
            let (silence, _) = heard.silence(Instant::now());
            if silence >= SILENCE && self.budget.waits_for_input() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
