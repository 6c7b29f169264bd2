//! The platform, for everyone in the image who needs it: TLS asks for randomness from deep inside.

use core::cell::RefCell;
use core::time::Duration;

use critical_section::Mutex;
use embassy_time::{Instant, Timer};
use forebay_board::{NoEntropy, Platform};
use forebay_device_core::{Clock, Random, Uptime, Watchdog};
use forebay_device_tls::{GetRandomFailed, SecureRandom};

use crate::board::{self, ThisPlatform};

static PLATFORM: Mutex<RefCell<Option<ThisPlatform>>> = Mutex::new(RefCell::new(None));

/// Gives the platform to everyone. Called once.
pub(crate) fn share(platform: ThisPlatform) {
    critical_section::with(|section| *PLATFORM.borrow_ref_mut(section) = Some(platform));
}

fn with<R>(use_it: impl FnOnce(&mut ThisPlatform) -> R) -> Option<R> {
    critical_section::with(|section| PLATFORM.borrow_ref_mut(section).as_mut().map(use_it))
}

/// See [`Platform::entropy`].
pub(crate) fn entropy(into: &mut [u8]) -> Result<(), NoEntropy> {
    with(|platform| platform.entropy(into)).unwrap_or(Err(NoEntropy))
}

/// See [`Platform::die_temperature`].
pub(crate) fn die_temperature() -> Option<i16> {
    with(Platform::die_temperature)
        .flatten()
        .and_then(|hundredths| i16::try_from(hundredths).ok())
}

/// Ends this run.
pub(crate) fn reset() -> ! {
    board::reset()
}

/// Randomness for TLS.
#[derive(Debug)]
pub(crate) struct Entropy;

impl SecureRandom for Entropy {
    fn fill(&self, into: &mut [u8]) -> Result<(), GetRandomFailed> {
        entropy(into).map_err(|NoEntropy| GetRandomFailed)
    }
}

/// Randomness for jitter.
pub(crate) struct Jitter;

impl Random for Jitter {
    fn draw(&mut self) -> u32 {
        let mut bytes = [0; 4];
        match entropy(&mut bytes) {
            Ok(()) => u32::from_le_bytes(bytes),
            // Without a generator TLS stops; the time's last digits still tell devices apart.
            Err(NoEntropy) => Instant::now().as_ticks() as u32,
        }
    }
}

/// The device's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceClock;

impl Clock for DeviceClock {
    fn now(&self) -> Uptime {
        Uptime::from_millis(Instant::now().as_millis())
    }

    async fn wait_until(&self, moment: Uptime) {
        Timer::at(instant(moment)).await;
    }
}

/// A moment of this boot as embassy counts it; nothing waits for longer than a day.
fn instant(moment: Uptime) -> Instant {
    const DAY: Duration = Duration::from_secs(86_400);
    let longest = Instant::now().as_millis() + DAY.as_millis() as u64;
    Instant::from_millis(moment.as_millis().min(longest))
}

/// The watchdog.
pub(crate) struct Dog;

impl Watchdog for Dog {
    fn feed(&mut self) {
        with(Platform::feed_watchdog);
    }
}
