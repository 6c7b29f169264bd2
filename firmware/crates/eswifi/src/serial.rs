//! The module on a serial line: an answer ends with its prompt.

use embedded_io_async::{Read, Write};

use crate::Transport;
use crate::answer::{PROMPT, WELL};

/// What a refusal ends with.
const REFUSED: &[u8] = b"ERROR\r\n> ";
/// The module's command to reset itself, after an end of whatever was begun.
const RESET: &[u8] = b"\rZR\r";
/// What it says once it has.
const GREETING: &[u8] = b"\r\neS-WiFi\r\n> ";

/// A transport over a serial line. There is no reset pin: the module is asked to reset itself.
#[derive(Debug)]
pub struct Serial<L>(pub L);

/// What the line fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialError<E> {
    /// The line itself.
    Line(E),
    /// The line has ended.
    Ended,
    /// The answer is longer than the room for it.
    TooLong,
}

impl<L: Read + Write> Serial<L> {
    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), SerialError<L::Error>> {
        while !bytes.is_empty() {
            match self.0.write(bytes).await.map_err(SerialError::Line)? {
                0 => return Err(SerialError::Ended),
                count => bytes = &bytes[count..],
            }
        }
        self.0.flush().await.map_err(SerialError::Line)
    }
}

impl<L: Read + Write> Transport for Serial<L> {
    type Error = SerialError<L::Error>;

    async fn reset(&mut self) -> Result<(), Self::Error> {
        self.write(RESET).await?;
        // Whatever an abandoned exchange has left comes first: only the greeting's end counts.
        let mut tail = [0; GREETING.len()];
        while tail != *GREETING {
            let mut byte = [0];
            if self.0.read(&mut byte).await.map_err(SerialError::Line)? == 0 {
                return Err(SerialError::Ended);
            }
            tail.rotate_left(1);
            tail[GREETING.len() - 1] = byte[0];
        }
        Ok(())
    }

    async fn exchange(&mut self, command: &[u8], payload: &[u8], answer: &mut [u8]) -> Result<usize, Self::Error> {
        self.write(command).await?;
        self.write(payload).await?;
        let mut length = 0;
        loop {
            let room = answer
                .get_mut(length..)
                .filter(|room| !room.is_empty())
                .ok_or(SerialError::TooLong)?;
            let count = self.0.read(room).await.map_err(SerialError::Line)?;
            if count == 0 {
                return Err(SerialError::Ended);
            }
            length += count;
            let so_far = &answer[..length];
            if so_far.ends_with(PROMPT) && (so_far.ends_with(WELL) || so_far.ends_with(REFUSED)) {
                return Ok(length);
            }
        }
    }
}
