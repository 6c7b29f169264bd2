//! What the cloud does not take, for now or for ever: devices that wait, suspended pairs, and poison messages.

pub(crate) mod canary;
pub(crate) mod poison;
pub(crate) mod suspensions;
pub(crate) mod waiting_devices;
