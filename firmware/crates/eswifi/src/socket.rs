//! The one TCP connection that the device has open.

use forebay_device_core::{Clock, Lost, Socket, Uptime};

use crate::Transport;
use crate::module::{CHUNK, LOCAL, Module, READ_WAIT};

/// An open connection. Dropping it leaves it to the next `open`, which closes it first.
#[derive(Debug)]
pub struct Connection<'s, M> {
    module: &'s mut M,
    /// Where in the module's answer the bytes are that were not read yet.
    waiting: core::ops::Range<usize>,
    is_over: bool,
}

impl<'s, M> Connection<'s, M> {
    pub(crate) fn new(module: &'s mut M) -> Self {
        Self {
            module,
            waiting: 0..0,
            is_over: false,
        }
    }
}

impl<T: Transport, C: Clock> Connection<'_, Module<'_, T, C>> {
    /// Asks the module once for bytes.
    async fn fetch(&mut self) -> Result<(), Lost> {
        let until = self.module.clock.now() + READ_WAIT + LOCAL;
        let length = self.module.say(format_args!("R0"), until).await?;
        if self.module.was_refused(length) {
            return Err(Lost::Closed);
        }
        let body = self.module.body(length);
        // The module's word for a connection that the peer has closed. TLS never sends a record of two bytes.
        if body == b"-1" {
            return Err(Lost::Closed);
        }
        let start = body.as_ptr().addr() - self.module.answer.as_ptr().addr();
        self.waiting = start..start + body.len();
        Ok(())
    }
}

impl<T: Transport, C: Clock> Socket for Connection<'_, Module<'_, T, C>> {
    async fn read(&mut self, buffer: &mut [u8], until: Uptime) -> Result<usize, Lost> {
        while self.waiting.is_empty() {
            if self.is_over {
                return Err(Lost::Closed);
            }
            let fetched = self.fetch().await;
            if let Err(lost) = fetched {
                self.is_over = true;
                return Err(lost);
            }
            if self.waiting.is_empty() && self.module.clock.now() >= until {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.waiting.len());
        buffer[..count].copy_from_slice(&self.module.answer[self.waiting.start..self.waiting.start + count]);
        self.waiting.start += count;
        Ok(count)
    }

    async fn write_all(&mut self, bytes: &[u8], until: Uptime) -> Result<(), Lost> {
        for chunk in bytes.chunks(CHUNK) {
            if self.is_over {
                return Err(Lost::Closed);
            }
            let sent = match self.module.send(chunk, until).await {
                Ok(sent) => sent,
                Err(lost) => {
                    self.is_over = true;
                    return Err(lost);
                }
            };
            if sent != i32::try_from(chunk.len()).ok() {
                // Refused, -1, or fewer than given: what the peer has of it is unknown.
                self.is_over = true;
                return Err(Lost::Closed);
            }
        }
        Ok(())
    }

    async fn close(&mut self, until: Uptime) {
        self.is_over = true;
        // A module that does not answer is reset before its next use.
        self.module.say(format_args!("P6=0"), until).await.ok();
    }
}
