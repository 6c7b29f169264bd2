//! The ISM43362 on SPI3: 16-bit words, low byte first, each turn announced by the module's data-ready line (Inventek, "ISM43362 AT command
//! set", chapter on SPI).

use embassy_stm32::exti::ExtiInput;
use embassy_stm32::gpio::Output;
use embassy_stm32::mode::Async;
use embassy_stm32::spi::mode::Master;
use embassy_stm32::spi::{Error, Spi};
use embassy_time::Timer;
use forebay_eswifi::Transport;

/// Fills an odd command up, and an answer's end.
const COMMAND_FILL: u8 = b'\n';
const ANSWER_FILL: u8 = 0x15;
const PROMPT: &[u8] = b"\r\n> ";
const RESET_MS: u64 = 10;

/// The module.
pub struct Wifi {
    spi: Spi<'static, Async, Master>,
    select: Output<'static>,
    ready: ExtiInput<'static, Async>,
    reset: Output<'static>,
}

/// What the line to the module fails with.
#[derive(Debug)]
pub enum WifiError {
    /// The bus.
    Spi(Error),
    /// After its reset the module said something else than its prompt.
    NoPrompt,
    /// The answer is longer than the room for it.
    TooLong,
}

impl From<Error> for WifiError {
    fn from(error: Error) -> WifiError {
        WifiError::Spi(error)
    }
}

impl Wifi {
    pub(crate) fn new(
        spi: Spi<'static, Async, Master>,
        select: Output<'static>,
        ready: ExtiInput<'static, Async>,
        reset: Output<'static>,
    ) -> Wifi {
        Wifi { spi, select, ready, reset }
    }

    async fn send(&mut self, command: &[u8], payload: &[u8]) -> Result<(), WifiError> {
        self.ready.wait_for_high().await;
        self.select.set_low();
        let mut bytes = command.iter().chain(payload).copied();
        let mut result = Ok(());
        while let Some(low) = bytes.next() {
            let word = u16::from_le_bytes([low, bytes.next().unwrap_or(COMMAND_FILL)]);
            result = self.spi.write(&[word]).await;
            if result.is_err() {
                break;
            }
        }
        self.select.set_high();
        Ok(result?)
    }

    async fn receive(&mut self, answer: &mut [u8]) -> Result<usize, WifiError> {
        self.ready.wait_for_high().await;
        self.select.set_low();
        let result = self.words(answer).await;
        self.select.set_high();
        let length = result?;
        Ok(answer[..length]
            .iter()
            .rposition(|byte| *byte != ANSWER_FILL)
            .map_or(0, |last| last + 1))
    }

    async fn words(&mut self, answer: &mut [u8]) -> Result<usize, WifiError> {
        let mut length = 0;
        while self.ready.is_high() {
            let mut word = [0_u16];
            self.spi.read(&mut word).await?;
            let room = answer.get_mut(length..length + 2).ok_or(WifiError::TooLong)?;
            room.copy_from_slice(&word[0].to_le_bytes());
            length += 2;
        }
        Ok(length)
    }
}

impl Transport for Wifi {
    type Error = WifiError;

    async fn reset(&mut self) -> Result<(), WifiError> {
        self.reset.set_low();
        Timer::after_millis(RESET_MS).await;
        self.reset.set_high();
        let mut greeting = [0; 16];
        let length = self.receive(&mut greeting).await?;
        if greeting[..length].ends_with(PROMPT) {
            Ok(())
        } else {
            Err(WifiError::NoPrompt)
        }
    }

    async fn exchange(&mut self, command: &[u8], payload: &[u8], answer: &mut [u8]) -> Result<usize, WifiError> {
        self.send(command, payload).await?;
        self.receive(answer).await
    }
}
