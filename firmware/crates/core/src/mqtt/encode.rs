//! Packets to the gateway.

/// The packet does not fit the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// What a CONNECT says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connect<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) clean_start: bool,
    /// Seconds.
    pub(crate) keep_alive: u16,
    /// Seconds that the session outlives the connection.
    pub(crate) session_expiry: u32,
    /// Bytes of the largest packet that the device takes.
    pub(crate) maximum_packet: u32,
}

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const PINGREQ: u8 = 0xc0;
const DISCONNECT: u8 = 0xe0;

const SESSION_EXPIRY: u8 = 0x11;
const MAXIMUM_PACKET: u8 = 0x27;

pub(crate) fn connect<'b>(packet: &Connect<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
    framed(CONNECT, buffer, |body| {
        body.text("MQTT")?;
        body.put(&[5, u8::from(packet.clean_start) << 1])?;
        body.put(&packet.keep_alive.to_be_bytes())?;
        // Two properties of five bytes each.
        body.put(&[10, SESSION_EXPIRY])?;
        body.put(&packet.session_expiry.to_be_bytes())?;
        body.put(&[MAXIMUM_PACKET])?;
        body.put(&packet.maximum_packet.to_be_bytes())?;
        body.text(packet.client_id)
    })
}

/// A PUBLISH at QoS 1 to a topic given in two parts.
pub(crate) fn publish<'b>(topic: [&str; 3], id: u16, is_again: bool, payload: &[u8], buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
    let head = PUBLISH | u8::from(is_again) << 3 | 1 << 1;
    framed(head, buffer, |body| {
        let length: usize = topic.iter().map(|part| part.len()).sum();
        body.put(&u16::try_from(length).map_err(|_| Full)?.to_be_bytes())?;
        for part in topic {
            body.put(part.as_bytes())?;
        }
        body.put(&id.to_be_bytes())?;
        body.put(&[0])?; // no properties
        body.put(payload)
    })
}

pub(crate) fn ping(buffer: &mut [u8]) -> Result<&[u8], Full> {
    framed(PINGREQ, buffer, |_| Ok(()))
}

/// A normal end; the session stays for as long as CONNECT said.
pub(crate) fn disconnect(buffer: &mut [u8]) -> Result<&[u8], Full> {
    framed(DISCONNECT, buffer, |_| Ok(()))
}

/// Bytes of the longest fixed header.
const HEADER: usize = 5;

fn framed(head: u8, buffer: &mut [u8], fill: impl FnOnce(&mut Body<'_>) -> Result<(), Full>) -> Result<&[u8], Full> {
    let mut body = Body {
        buffer: buffer.get_mut(HEADER..).ok_or(Full)?,
        length: 0,
    };
    fill(&mut body)?;
    let length = body.length;
    let mut digits = [0; HEADER - 1];
    let mut count = 0;
    let mut rest = length;
    loop {
        let digit = digits.get_mut(count).ok_or(Full)?;
        *digit = (rest & 0x7f) as u8 | if rest > 0x7f { 0x80 } else { 0 };
        rest >>= 7;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    // The header goes right before the body, wherever that makes it begin.
    let start = HEADER - 1 - count;
    buffer[start] = head;
    buffer[start + 1..HEADER].copy_from_slice(&digits[..count]);
    Ok(&buffer[start..HEADER + length])
}

struct Body<'b> {
    buffer: &'b mut [u8],
    length: usize,
}

impl Body<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.length + bytes.len();
        self.buffer.get_mut(self.length..end).ok_or(Full)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Full> {
        self.put(&u16::try_from(text.len()).map_err(|_| Full)?.to_be_bytes())?;
        self.put(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_standard() {
        let mut buffer = [0; 64];
        let packet = Connect {
            client_id: "b",
            clean_start: true,
            keep_alive: 60,
            session_expiry: 3600,
            maximum_packet: 1024,
        };
        assert_eq!(
            connect(&packet, &mut buffer).unwrap(),
            b"\x10\x18\x00\x04MQTT\x05\x02\x00\x3c\x0a\x11\x00\x00\x0e\x10\x27\x00\x00\x04\x00\x00\x01b"
        );
        assert_eq!(
            publish(["d/", "b", "/t"], 7, true, b"{}", &mut buffer).unwrap(),
            b"\x3a\x0c\x00\x05d/b/t\x00\x07\x00{}"
        );
        assert_eq!(ping(&mut buffer).unwrap(), b"\xc0\x00");
        assert_eq!(disconnect(&mut buffer).unwrap(), b"\xe0\x00");
    }

    #[test]
    fn long_packets_have_long_headers_and_too_long_ones_are_an_error() {
        let mut buffer = [0; 400];
        let packet = publish(["t", "", ""], 1, false, &[b'x'; 300], &mut buffer).unwrap();
        assert_eq!(packet[..3], [0x32, 0xb2, 0x02]);
        assert_eq!(packet.len(), 3 + 306);
        assert_eq!(publish(["t", "", ""], 1, false, &[b'x'; 390], &mut buffer), Err(Full));
        assert_eq!(ping(&mut [0; 3]), Err(Full));
    }
}
