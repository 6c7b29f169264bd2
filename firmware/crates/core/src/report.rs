//! What the device publishes, as JSON. `docs/device-payloads.md` is its schema.

use forebay_flash::NorFlash;

use crate::clock::Uptime;
use crate::json::Object;
use crate::network::Lost;
use crate::queue::wall_ms;
use crate::sample::Sample;
use crate::state::{Settings, State};

/// Bytes of the longest payload.
pub(crate) const MAX_PAYLOAD: usize = 832;

/// One sample. One that is not dated and of this boot is dated now.
pub(crate) fn sample<'b, Q: NorFlash, S: NorFlash>(
    sample: &Sample,
    state: &State<Q, S>,
    settings: &Settings<'_>,
    buffer: &'b mut [u8],
) -> Option<&'b [u8]> {
    let mut object = Object::new(buffer);
    object.text("device", settings.device);
    object.number("boot", sample.id.boot);
    object.number("seq", sample.id.sequence);
    object.number("up", millis(sample.uptime));
    let dated = sample.wall_ms.or_else(|| {
        (sample.id.boot == state.boot)
            .then(|| wall_ms(&state.wall, sample.uptime))
            .flatten()
    });
    if let Some(wall) = dated {
        object.number("at", signed(wall));
    }
    let reading = &sample.reading;
    if let Some(die) = reading.die {
        object.fixed("die", die, 2);
    }
    if let Some(temperature) = reading.temperature {
        object.fixed("temp", temperature, 2);
    }
    if let Some(humidity) = reading.humidity {
        object.fixed("hum", humidity, 2);
    }
    if let Some(pressure) = reading.pressure {
        object.fixed("press", pressure, 2);
    }
    if let Some(axes) = reading.acceleration {
        object.axes("acc", axes, 3);
    }
    if let Some(axes) = reading.rotation {
        object.axes("gyro", axes, 1);
    }
    if let Some(axes) = reading.magnetic {
        object.axes("mag", axes, 3);
    }
    object.finish()
}

/// The health report: how one sees into a locked device.
pub(crate) fn health<'b, Q: NorFlash, S: NorFlash>(
    state: &mut State<Q, S>,
    settings: &Settings<'_>,
    now: Uptime,
    buffer: &'b mut [u8],
) -> Option<&'b [u8]> {
    let slowest_ack = state.take_slowest_ack();
    let (counters, queue) = (state.counters, state.queue.counters());
    let mut object = Object::new(buffer);
    object.text("device", settings.device);
    object.number("boot", state.boot);
    object.number("up", millis(now));
    if let Some(wall) = wall_ms(&state.wall, now) {
        object.number("at", signed(wall));
    }
    object.text("version", settings.version);
    object.text("slot", settings.slot);
    object.text("reset", settings.reset_cause);
    object.text("gave_up", state.last_cause.word());
    object.number("connections", counters.connections);
    object.object("lost", |inner| {
        for lost in Lost::ALL {
            if counters.lost[lost.index()] > 0 {
                inner.number(lost.word(), counters.lost[lost.index()]);
            }
        }
    });
    object.number("module_resets", counters.module_resets);
    object.number("measured", counters.measured);
    object.number("acked", counters.acked);
    object.number("ack_ms", slowest_ack);
    object.number("refused", counters.refused);
    object.number("times_refused", counters.times_refused);
    object.object("queue", |inner| {
        inner.number("waiting", state.queue.len() as i64);
        inner.number("high", queue.high_water);
        inner.number("spilled", queue.spilled);
        inner.number("evicted", queue.evicted);
        inner.number("unwritten", queue.unwritten);
    });
    if let Some((size, most)) = state.stack {
        object.object("stack", |inner| {
            inner.number("size", size);
            inner.number("most", most);
        });
    }
    if let Some(signal) = state.signal_dbm {
        object.number("signal", signal);
    }
    object.finish()
}

fn millis(moment: Uptime) -> i64 {
    signed(moment.as_millis())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
