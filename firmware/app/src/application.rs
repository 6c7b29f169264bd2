//! What the device does once it runs: the core of `crates/core` on this board, and the confirmation of its image.

use alloc::format;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use core::cell::RefCell;
use core::time::Duration;

use embassy_futures::select::{Either, select};
use embassy_time::Timer;
use embedded_hal_async::i2c::I2c;
use forebay_board::{NoEntropy, ResetCause};
use forebay_device_core::{Clock as _, Exit, Parts, Retry, Settings, State, run as run_device};
use forebay_device_tls::{Client, provider};
use forebay_eswifi::{Access, Module, Transport};
use forebay_flash::{NorFlash, Region, map};
use forebay_identity::{Fault, Identity};
use forebay_image::{Control, Slot, Status, Version};
use forebay_sensors::Sensors;
use log::{error, info, warn};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::platform::{self, DeviceClock, Dog, Entropy, Jitter};
use crate::{heap, report, stack};

/// The image's build, in seconds since 1970.
const BUILT: &str = env!("FOREBAY_BUILT");
#[cfg(feature = "qemu")]
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
#[cfg(not(feature = "qemu"))]
const SAMPLE_EVERY: Duration = Duration::from_secs(60);
const HEALTH_EVERY: Duration = Duration::from_secs(3600);
const LOOK_EVERY_MS: u64 = 500;
/// Acks between two lines on the console.
const SAY_EVERY: u32 = 5;

static ENTROPY: Entropy = Entropy;

/// Runs the device. Never returns; every end is a reset.
pub(crate) async fn run<F, T, I>(flash: F, wifi: T, bus: I, cause: ResetCause, control: &RefCell<Control<'_, F>>) -> !
where
    F: NorFlash + Clone,
    T: Transport,
    I: I2c,
{
    report::at_start(&mut control.borrow_mut(), cause);
    if !generator_works() {
        error!("the random generator cannot be trusted");
        platform::reset()
    }
    match Identity::read(&mut flash.clone()) {
        Ok(identity) => work(flash, wifi, bus, cause, control, &identity).await,
        Err(Fault::Blank) => wait_for_identity(control).await,
        Err(fault) => {
            // No image confirms itself without having published: one that cannot read the identity is given up.
            error!("the identity cannot be used: {fault:?}");
            loop {
                Timer::after_secs(60).await;
            }
        }
    }
}

async fn work<F, T, I>(flash: F, wifi: T, bus: I, cause: ResetCause, control: &RefCell<Control<'_, F>>, identity: &Identity) -> !
where
    F: NorFlash + Clone,
    T: Transport,
    I: I2c,
{
    let Some((host, port)) = identity
        .gateway()
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
    else {
        error!("`{}` is no gateway: provision the device anew", identity.gateway());
        platform::reset()
    };
    let access = Access {
        ssid: identity.network(),
        pass_phrase: identity.pass_phrase(),
        host,
        port,
    };
    info!(
        "device {}, gateway {} at {}",
        identity.name(),
        identity.server_name(),
        identity.gateway()
    );
    let Version { major, minor, patch } = control.borrow().version();
    let version = format!("{major}.{minor}.{patch}");
    let clock = DeviceClock;
    let settings = Settings {
        device: identity.name(),
        sample_every: SAMPLE_EVERY,
        health_every: HEALTH_EVERY,
        build_time: Duration::from_secs(BUILT.parse().unwrap_or(0)),
        version: &version,
        slot: match control.borrow().slot() {
            Slot::A => "A",
            Slot::B => "B",
        },
        reset_cause: report::word(cause),
    };
    let queue = Region::new(flash.clone(), map::QUEUE);
    let notes = Region::new(flash, map::SETTINGS);
    let state = RefCell::new(State::new(queue, notes, &settings, clock.now()));
    let mut client = match client(identity) {
        Ok(client) => client,
        Err(why) => {
            error!("{why}");
            platform::reset()
        }
    };
    let parts = Parts {
        network: &mut Module::new(wifi, clock, access),
        secure: &mut client,
        clock: &clock,
        random: &mut Jitter,
        probe: &mut Sensors::new(bus, platform::die_temperature),
        watchdog: &mut Dog,
    };
    match select(run_device(parts, &state, &settings), confirm_when_acked(control, &state)).await {
        Either::First(Exit::Reboot(cause)) => warn!("reboot: {}", cause.word()),
        Either::First(Exit::Stopped) => warn!("stopped"),
        Either::Second(never) => match never {},
    }
    platform::reset()
}

fn client(identity: &Identity) -> Result<Client, forebay_device_tls::NotUsable> {
    let key = PrivateKeyDer::Pkcs8(identity.key().to_vec().into());
    Client::new(
        Arc::new(provider(&ENTROPY)),
        forebay_device_tls::Identity {
            ca: CertificateDer::from(identity.ca().to_vec()),
            chain: identity.chain().map(|one| CertificateDer::from(one.to_vec())).collect(),
            key,
            gateway: identity.server_name().to_string(),
        },
    )
}

enum Never {}

/// The self-test of an image: connected, published, acked.
async fn confirm_when_acked<F, Q, S>(control: &RefCell<Control<'_, F>>, state: &RefCell<State<Q, S>>) -> Never
where
    F: NorFlash + Clone,
    Q: NorFlash,
    S: NorFlash,
{
    let mut seen = (false, 0, Retry::default());
    loop {
        Timer::after_millis(LOOK_EVERY_MS).await;
        let stack = stack::used();
        state.borrow_mut().note_stack(stack.size, stack.most);
        let (is_connected, acked, lost, retry) = {
            let state = state.borrow();
            (state.is_connected(), state.counters().acked, state.last_lost(), state.last_retry())
        };
        if let Some(lost) = lost
            && retry != seen.2
        {
            let Retry { failures, wait } = retry;
            warn!(
                "not connected: {}, failure {failures}, next try in {} ms",
                lost.word(),
                wait.as_millis() as u32
            );
        }
        // Also where both the loss and the next connection came between two looks.
        if is_connected && (!seen.0 || retry != seen.2) {
            info!("connected");
        }
        if acked > 0 && seen.1 == 0 {
            confirm(control);
        }
        if acked / SAY_EVERY > seen.1 / SAY_EVERY {
            let (most, size) = heap::most();
            info!("acked {acked}, heap {most} of {size}");
        }
        seen = (is_connected, acked, retry);
    }
}

fn confirm<F: NorFlash + Clone>(control: &RefCell<Control<'_, F>>) {
    if let Err(failure) = control.borrow_mut().confirm() {
        // The next start tries again; this one may still be counted as failed.
        error!("cannot confirm: {failure:?}");
        return;
    }
    info!("confirmed");
    report::stack(stack::used());
}

/// A device that was never provisioned has nobody to publish to: its image is confirmed by what it can test, so that updates and
/// provisioning can go on.
async fn wait_for_identity<F: NorFlash + Clone>(control: &RefCell<Control<'_, F>>) -> ! {
    info!("not provisioned");
    if control.borrow().status() != Status::Confirmed {
        confirm(control);
    } else {
        info!("confirmed");
        report::stack(stack::used());
    }
    loop {
        Timer::after_secs(1).await;
        forebay_device_core::Watchdog::feed(&mut Dog);
    }
}

fn generator_works() -> bool {
    let (mut first, mut second) = ([0; 32], [0; 32]);
    let both = platform::entropy(&mut first).and_then(|()| platform::entropy(&mut second));
    both != Err(NoEntropy) && first != second
}
