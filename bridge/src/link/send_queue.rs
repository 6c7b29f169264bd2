//! What waits for the cloud to take it. A ping goes in front of all packets of which nothing has been sent: on a slow line its
//! answer must not wait for megabytes.

use std::collections::VecDeque;

use bytes::{Buf as _, BytesMut};

const PINGREQ: [u8; 2] = [0xC0, 0];

/// Bytes of whole packets, in the order in which they leave.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: BytesMut,
    /// Bytes that are left of each packet in `bytes`.
    packets: VecDeque<usize>,
    /// Something of the first packet has left.
    is_begun: bool,
    /// A packet that is not whole yet.
    partial: BytesMut,
}

impl SendQueue {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(length) = packet_length(&self.partial).filter(|length| *length <= self.partial.len()) {
            let packet = self.partial.split_to(length);
            if *packet == PINGREQ && self.packets.len() > usize::from(self.is_begun) {
                self.push_ping();
            } else {
                self.packets.push_back(length);
                self.bytes.extend_from_slice(&packet);
            }
        }
    }

    fn push_ping(&mut self) {
        let at = if self.is_begun { self.packets[0] } else { 0 };
        let later = self.bytes.split_off(at);
        self.bytes.extend_from_slice(&PINGREQ);
        self.bytes.unsplit(later);
        self.packets.insert(usize::from(self.is_begun), PINGREQ.len());
    }

    /// What is to be sent next.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes note that so many bytes have left.
    pub(crate) fn advance(&mut self, mut sent: usize) {
        self.bytes.advance(sent);
        while let Some(first) = self.packets.front_mut() {
            if sent < *first {
                *first -= sent;
                self.is_begun |= sent > 0;
                return;
            }
            sent -= *first;
            self.packets.pop_front();
            self.is_begun = false;
        }
    }

    /// All that waits, whole or not.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.partial.len()
    }
}

/// Bytes of the packet that begins here; `None` while that cannot be told.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(index + 2 + length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &[u8] = &[0x30, 4, 0, 1, b'a', 0xC0];
    const B: &[u8] = &[0x30, 4, 0, 1, b'b', 0x00];

    fn all(queue: &mut SendQueue) -> Vec<u8> {
        let bytes = queue.bytes().to_vec();
        queue.advance(bytes.len());
        assert_eq!((queue.len(), queue.packets.len()), (0, 0));
        bytes
    }

    #[test]
    fn a_ping_overtakes_what_has_not_begun_to_leave_and_cuts_no_packet() {
        let mut queue = SendQueue::default();
        for byte in [A, B].concat() {
            queue.push(&[byte]);
        }
        queue.advance(2);
        queue.push(&PINGREQ);
        assert_eq!(all(&mut queue), [&A[2..], &PINGREQ, B].concat());
        queue.push(&[A, B, &PINGREQ].concat());
        assert_eq!(all(&mut queue), [&PINGREQ, A, B].concat());
        queue.push(&PINGREQ);
        assert_eq!(all(&mut queue), PINGREQ);
    }

    #[test]
    fn bytes_that_look_like_a_ping_inside_a_packet_stay_there() {
        let mut queue = SendQueue::default();
        let long = [&[0x30, 0x82, 0x01][..], &[0xC0, 0].repeat(65)].concat();
        for piece in [A, B, &long].concat().chunks(3) {
            queue.push(piece);
        }
        assert_eq!(all(&mut queue), [A, B, &long].concat());
    }
}
