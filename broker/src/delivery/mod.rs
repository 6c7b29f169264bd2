//! What a session is owed at QoS 1 and 2: messages that wait, packet ids in flight, and their handshakes.
//!
//! ```text
//! fan-out ──▶ [room: what waits, within its bound] ──▶ [window: packet ids in flight] ──▶ connection
//! ```
//!
//! A message waits until the peer's window and its connection have room, so one that comes later never goes first. Nothing is sent
//! twice on a connection (MQTT-4.4.0-1). Packet ids are this side's own: the peer's publishes have another set of them (MQTT 5,
//! 2.2.1). Bounds: what waits is charged to the identity, and at the bound the session's oldest message that waits is dropped and
//! counted; in flight is what the peer's Receive Maximum and [`Window`](window::Window) allow. A peer that keeps an answer back stops
//! its own deliveries only, and for [`Limits::ack_timeout`](crate::Limits::ack_timeout): then its connection is closed.
//!
//! It is kept in memory and ends with the connection, so it is for sessions that end with it, too.
//!
//! A message of a shared subscription goes to one of several sessions: see [`Group`].

mod group;
mod groups;
mod owed;
mod room;
mod session;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use group::{Group, Member};
pub(crate) use groups::{Groups, NotJoined, Share, ShareError};
pub(crate) use owed::{Owed, Shared};
pub(crate) use session::{Offered, Overdue, SessionDelivery, Wire};
pub(crate) use window::{Received, window_of};
