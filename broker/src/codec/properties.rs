//! The properties of MQTT 5.

use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{EncodeError, Fault, Found};
use super::frame::{self, Reader};
use super::text::{self, Text};

/// Name and value pairs, in order; names may repeat.
pub type UserProperties = Vec<(Text, Text)>;

macro_rules! properties {
    ($($name:ident($kind:ty) = $id:literal, $read:ident, $write:ident, $text:literal;)*) => {
        /// One property as it is on the wire.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Property {
            $(#[doc = concat!("`", stringify!($id), "`: ", $text, ".")] $name($kind),)*
        }

        impl Property {
            /// Its identifier.
            pub fn id(&self) -> u8 {
                match self {
                    $(Property::$name(_) => $id,)*
                }
            }

            /// Reads one, identifier first.
            pub(super) fn read(reader: &mut Reader<'_>) -> Found<Property> {
                match read_id(reader)? {
                    $($id => Ok(Property::$name($read(reader, $id, $text)?)),)*
                    other => Err(Fault::PropertyUnknown(u32::from(other))),
                }
            }

            /// Appends it to `out`, identifier first.
            ///
            /// # Errors
            ///
            /// A string that is too long or contains NUL; `out` may then have a part of it.
            pub fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
                out.put_u8(self.id());
                match self {
                    $(Property::$name(value) => $write(value, $text, out),)*
                }
            }
        }
    };
}

properties! {
    PayloadFormat(bool) = 0x01, read_bool, write_bool, "payload format indicator";
    MessageExpiry(u32) = 0x02, read_u32, write_u32, "message expiry interval";
    ContentType(Text) = 0x03, read_text, write_text, "content type";
    ResponseTopic(Text) = 0x08, read_name, write_text, "response topic";
    CorrelationData(Bytes) = 0x09, read_binary, write_binary, "correlation data";
    SubscriptionId(NonZeroU32) = 0x0b, read_varint, write_varint, "subscription identifier";
    SessionExpiry(u32) = 0x11, read_u32, write_u32, "session expiry interval";
    AssignedClientId(Text) = 0x12, read_text, write_text, "assigned client identifier";
    ServerKeepAlive(u16) = 0x13, read_u16, write_u16, "server keep alive";
    AuthenticationMethod(Text) = 0x15, read_text, write_text, "authentication method";
    AuthenticationData(Bytes) = 0x16, read_binary, write_binary, "authentication data";
    RequestProblemInformation(bool) = 0x17, read_bool, write_bool, "request problem information";
    WillDelay(u32) = 0x18, read_u32, write_u32, "will delay interval";
    RequestResponseInformation(bool) = 0x19, read_bool, write_bool, "request response information";
    ResponseInformation(Text) = 0x1a, read_text, write_text, "response information";
    ServerReference(Text) = 0x1c, read_text, write_text, "server reference";
    ReasonString(Text) = 0x1f, read_text, write_text, "reason string";
    ReceiveMaximum(NonZeroU16) = 0x21, read_nonzero_u16, write_nonzero_u16, "receive maximum";
    TopicAliasMaximum(u16) = 0x22, read_u16, write_u16, "topic alias maximum";
    TopicAlias(NonZeroU16) = 0x23, read_alias, write_nonzero_u16, "topic alias";
    MaximumQoS(bool) = 0x24, read_bool, write_bool, "maximum QoS";
    RetainAvailable(bool) = 0x25, read_bool, write_bool, "retain available";
    User((Text, Text)) = 0x26, read_pair, write_pair, "user property";
    MaximumPacketSize(NonZeroU32) = 0x27, read_nonzero_u32, write_nonzero_u32, "maximum packet size";
    WildcardAvailable(bool) = 0x28, read_bool, write_bool, "wildcard subscription available";
    SubscriptionIdAvailable(bool) = 0x29, read_bool, write_bool, "subscription identifier available";
    SharedAvailable(bool) = 0x2a, read_bool, write_bool, "shared subscription available";
}

/// Reads back what [`PublishProperties::travelling`](super::PublishProperties::travelling) holds, up to its end or the first byte that
/// makes no sense.
pub fn travelling(encoded: &Bytes) -> impl Iterator<Item = Property> + '_ {
    let mut reader = Reader::new(encoded);
    std::iter::from_fn(move || {
        if reader.remaining() > 0 {
            Property::read(&mut reader).ok()
        } else {
            None
        }
    })
}

/// Takes every property of a section, one by one.
pub(super) fn each(section: &mut Reader<'_>, mut take: impl FnMut(Property) -> Found<()>) -> Found<()> {
    while section.remaining() > 0 {
        take(Property::read(section)?)?;
    }
    Ok(())
}

/// Fills a property that may be given once.
pub(super) fn once<T>(slot: &mut Option<T>, value: T, id: u8) -> Found<()> {
    if slot.replace(value).is_some() {
        return Err(Fault::PropertyRepeated(id));
    }
    Ok(())
}

/// The refusal of a property that another packet may carry.
pub(super) fn misplaced(property: &Property) -> Fault {
    Fault::PropertyMisplaced(property.id())
}

/// Writes a section with its length in front.
pub(super) fn write_section(properties: impl IntoIterator<Item = Property>, out: &mut BytesMut) -> Result<(), EncodeError> {
    let mut section = BytesMut::new();
    for property in properties {
        property.write(&mut section)?;
    }
    write_raw_section(&section, out)
}

/// As [`write_section`] for one that is encoded already.
pub(super) fn write_raw_section(section: &[u8], out: &mut BytesMut) -> Result<(), EncodeError> {
    if section.len() > frame::MAX_VARINT {
        return Err(EncodeError::PacketTooLong { size: section.len() });
    }
    frame::write_varint(section.len(), out);
    out.put_slice(section);
    Ok(())
}

/// User properties as properties to write.
pub(super) fn users(pairs: &UserProperties) -> impl Iterator<Item = Property> + '_ {
    pairs.iter().cloned().map(Property::User)
}

/// Reads an identifier. All that exist fit in one byte.
pub(super) fn read_id(reader: &mut Reader<'_>) -> Found<u8> {
    let id = reader.varint("property identifier")?;
    u8::try_from(id).map_err(|_| Fault::PropertyUnknown(u32::try_from(id).unwrap_or(u32::MAX)))
}

/// Gathers the properties that travel with a message, in their order and encoding: one slice of the packet when nothing is between
/// them, a copy otherwise.
#[derive(Debug, Default)]
pub(super) struct Travelling {
    slice: Option<Range<usize>>,
    copy: BytesMut,
    seen: u8,
}

impl Travelling {
    /// Takes the property whose identifier was just read, if it is one that travels.
    pub(super) fn take(&mut self, id: u8, start: usize, reader: &mut Reader<'_>) -> Found<bool> {
        let seen = match id {
            0x01 => {
                read_bool(reader, id, "payload format indicator")?;
                1
            }
            0x03 => {
                reader.text_range("content type")?;
                2
            }
            0x08 => {
                let range = reader.text_range("response topic")?;
                text::check_name(reader.get(range), "response topic")?;
                4
            }
            0x09 => {
                reader.field("correlation data")?;
                8
            }
            0x26 => {
                reader.text_range("user property name")?;
                reader.text_range("user property value")?;
                0
            }
            _ => return Ok(false),
        };
        if self.seen & seen != 0 {
            return Err(Fault::PropertyRepeated(id));
        }
        self.seen |= seen;
        self.keep(start..reader.position(), reader);
        Ok(true)
    }

    /// What was gathered.
    pub(super) fn finish(self, reader: &Reader<'_>) -> Bytes {
        match self.slice {
            Some(range) => reader.slice(range),
            None => self.copy.freeze(),
        }
    }

    fn keep(&mut self, range: Range<usize>, reader: &Reader<'_>) {
        match self.slice.take() {
            None if self.copy.is_empty() => self.slice = Some(range),
            None => self.copy.put_slice(reader.get(range)),
            Some(slice) if slice.end == range.start => self.slice = Some(slice.start..range.end),
            Some(slice) => {
                self.copy.put_slice(reader.get(slice));
                self.copy.put_slice(reader.get(range));
            }
        }
    }
}

fn read_bool(reader: &mut Reader<'_>, id: u8, field: &'static str) -> Found<bool> {
    match reader.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(Fault::PropertyValue {
            id,
            value: u32::from(value),
        }),
    }
}

fn read_u16(reader: &mut Reader<'_>, _: u8, field: &'static str) -> Found<u16> {
    reader.u16(field)
}

fn read_u32(reader: &mut Reader<'_>, _: u8, field: &'static str) -> Found<u32> {
    reader.u32(field)
}

fn read_nonzero_u16(reader: &mut Reader<'_>, id: u8, field: &'static str) -> Found<NonZeroU16> {
    NonZeroU16::new(reader.u16(field)?).ok_or(Fault::PropertyValue { id, value: 0 })
}

fn read_alias(reader: &mut Reader<'_>, _: u8, field: &'static str) -> Found<NonZeroU16> {
    NonZeroU16::new(reader.u16(field)?).ok_or(Fault::TopicAliasZero)
}

fn read_nonzero_u32(reader: &mut Reader<'_>, id: u8, field: &'static str) -> Found<NonZeroU32> {
    NonZeroU32::new(reader.u32(field)?).ok_or(Fault::PropertyValue { id, value: 0 })
}

fn read_varint(reader: &mut Reader<'_>, id: u8, field: &'static str) -> Found<NonZeroU32> {
    let value = reader.varint(field)?;
    u32::try_from(value)
        .ok()
        .and_then(NonZeroU32::new)
        .ok_or(Fault::PropertyValue { id, value: 0 })
}

fn read_text(reader: &mut Reader<'_>, _: u8, field: &'static str) -> Found<Text> {
    reader.text(field)
}

fn read_name(reader: &mut Reader<'_>, _: u8, field: &'static str) -> Found<Text> {
    let name = reader.text(field)?;
    text::check_name(name.as_bytes(), field)?;
    Ok(name)
}

fn read_binary(reader: &mut Reader<'_>, _: u8, field: &'static str) -> Found<Bytes> {
    reader.binary(field)
}

fn read_pair(reader: &mut Reader<'_>, _: u8, _: &'static str) -> Found<(Text, Text)> {
    Ok((reader.text("user property name")?, reader.text("user property value")?))
}

fn write_bool(value: &bool, _: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u8(u8::from(*value));
    Ok(())
}

fn write_u16(value: &u16, _: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u16(*value);
    Ok(())
}

fn write_u32(value: &u32, _: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u32(*value);
    Ok(())
}

fn write_nonzero_u16(value: &NonZeroU16, _: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u16(value.get());
    Ok(())
}

fn write_nonzero_u32(value: &NonZeroU32, _: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u32(value.get());
    Ok(())
}

fn write_varint(value: &NonZeroU32, _: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    let value = value.get() as usize;
    if value > frame::MAX_VARINT {
        return Err(EncodeError::Unsayable("a subscription identifier is above 268435455"));
    }
    frame::write_varint(value, out);
    Ok(())
}

fn write_text(value: &Text, field: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame::write_text(value.as_bytes(), field, out)
}

fn write_binary(value: &Bytes, field: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame::write_binary(value, field, out)
}

fn write_pair(value: &(Text, Text), _: &'static str, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame::write_text(value.0.as_bytes(), "user property name", out)?;
    frame::write_text(value.1.as_bytes(), "user property value", out)
}
