//! The values that JSON pointers (RFC 6901) name, taken out of a payload in one pass; what none names is skipped.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Pointers, ready to be looked for.
#[derive(Debug, Default)]
pub(super) struct Pointers {
    root: Node,
    count: usize,
}

/// What begins with the same tokens.
#[derive(Debug, Default)]
struct Node {
    /// The pointer that ends here.
    place: Option<usize>,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    key: String,
    /// The same as an array's index.
    index: Option<usize>,
    node: Node,
}

/// Where what is found is put: nothing is allocated for a few pointers, as every publish is read.
#[derive(Debug, Default)]
pub(super) struct Room<'a> {
    few: [Found<'a>; FEW],
    many: Vec<Found<'a>>,
}

/// A counter, a boot id and some fields.
const FEW: usize = 8;

/// What stands at a pointer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Found<'a> {
    /// Nothing.
    #[default]
    Absent,
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// An object or an array.
    Other,
}

impl Pointers {
    /// Adds a pointer; its place in what [`read`](Self::read) gives. One that is there already keeps its place.
    pub(super) fn add(&mut self, pointer: &str) -> usize {
        let mut node = &mut self.root;
        // The empty pointer is the whole document; each `/` begins a token.
        for token in pointer.split('/').skip(1) {
            let key = token.replace("~1", "/").replace("~0", "~");
            node = node.child(key);
        }
        let place = *node.place.get_or_insert(self.count);
        self.count = self.count.max(place + 1);
        place
    }

    /// Whether there is nothing to look for.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What stands at each pointer, by its place, in a room that nothing was put into; `None` if the payload is not JSON. Of a
    /// key that comes twice the last one counts.
    pub(super) fn read<'a, 'r>(&self, payload: &'a [u8], room: &'r mut Room<'a>) -> Option<&'r [Found<'a>]> {
        let found = room.of(self.count);
        let mut json = serde_json::Deserializer::from_slice(payload);
        let seed = At {
            node: &self.root,
            found: &mut *found,
        };
        seed.deserialize(&mut json).and_then(|()| json.end()).ok()?;
        Some(found)
    }
}

impl<'a> Room<'a> {
    fn of(&mut self, count: usize) -> &mut [Found<'a>] {
        if count <= FEW {
            return &mut self.few[..count];
        }
        self.many.resize(count, Found::Absent);
        &mut self.many
    }
}

impl Node {
    fn child(&mut self, key: String) -> &mut Self {
        let at = self.children.iter().position(|child| child.key == key).unwrap_or_else(|| {
            // An index is written without a sign and without leading zeros.
            let index = key.parse().ok().filter(|index: &usize| index.to_string() == key);
            let node = Self::default();
            self.children.push(Child { key, index, node });
            self.children.len() - 1
        });
        &mut self.children[at].node
    }
}

impl Found<'_> {
    /// As a whole number from 0 on.
    pub(super) const fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            _ => None,
        }
    }

    /// As a number.
    #[expect(clippy::cast_precision_loss, reason = "what a JSON number is for most")]
    pub(super) const fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(number) => Some(*number as f64),
            Self::Signed(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// As something to be compared: a text, a number, true or false.
    pub(super) fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Bool(value) => Some(value.to_string().into()),
            Self::Unsigned(number) => Some(number.to_string().into()),
            Self::Signed(number) => Some(number.to_string().into()),
            Self::Float(number) => Some(serde_json::Value::from(*number).to_string().into()),
            Self::Absent | Self::Null | Self::Other => None,
        }
    }
}

/// The document at one node.
struct At<'n, 'f, 'a> {
    node: &'n Node,
    found: &'f mut [Found<'a>],
}

impl<'a> At<'_, '_, 'a> {
    fn note(&mut self, what: Found<'a>) {
        if let Some(found) = self.node.place.and_then(|place| self.found.get_mut(place)) {
            *found = what;
        }
    }
}

impl<'a> DeserializeSeed<'a> for At<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for At<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.note(Found::Null);
        Ok(())
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.note(Found::Bool(value));
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.note(Found::Unsigned(number));
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.note(Found::Signed(number));
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.note(Found::Float(number));
        Ok(())
    }

    fn visit_borrowed_str<E>(mut self, text: &'a str) -> Result<(), E> {
        self.note(Found::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.note(Found::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<(), M::Error> {
        self.note(Found::Other);
        while let Some(child) = map.next_key_seed(Key(self.node))? {
            match child {
                Some(child) => map.next_value_seed(At {
                    node: &child.node,
                    found: self.found,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(mut self, mut sequence: S) -> Result<(), S::Error> {
        self.note(Found::Other);
        for index in 0.. {
            let child = self.node.children.iter().find(|child| child.index == Some(index));
            let goes_on = match child {
                Some(child) => sequence
                    .next_element_seed(At {
                        node: &child.node,
                        found: self.found,
                    })?
                    .is_some(),
                None => sequence.next_element::<IgnoredAny>()?.is_some(),
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}

/// An object's key, to the child that it leads to.
struct Key<'n>(&'n Node);

impl<'a, 'n> DeserializeSeed<'a> for Key<'n> {
    type Value = Option<&'n Child>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Key<'n> {
    type Value = Option<&'n Child>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.children.iter().find(|child| child.key == key))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const DOCUMENT: &str = r#" {"seq": 7, "a": {"b": [1, {"c": -2}, "x\n"], "b2": 1.5e3}, "a/b": true, "m~n": "é", "": null,
        "big": 18446744073709551615, "skip": {"seq": 9, "deep": [[[{}]], "\u00e9\"}"]}, "last": "end"} "#;
    const POINTERS: [&str; 20] = [
        "",
        "/seq",
        "/a",
        "/a/b/0",
        "/a/b/1/c",
        "/a/b/2",
        "/a/b/3",
        "/a/b/00",
        "/a/b/+1",
        "/a/b2",
        "/a~1b",
        "/m~0n",
        "/",
        "/big",
        "/skip/seq",
        "/skip/deep/0/0/0/0",
        "/last",
        "/none",
        "/seq/x",
        "/a/b",
    ];

    fn same(found: &Found<'_>, value: Option<&Value>) -> bool {
        let text = value.and_then(Value::as_str).map(str::to_owned);
        match found {
            Found::Absent => value.is_none(),
            Found::Null => value == Some(&Value::Null),
            Found::Other => value.is_some_and(|value| value.is_object() || value.is_array()),
            Found::Text(found) => text.as_deref() == Some(&**found),
            Found::Bool(_) => found.as_text().as_deref() == value.map(Value::to_string).as_deref(),
            Found::Unsigned(_) | Found::Signed(_) | Found::Float(_) => {
                found.as_u64() == value.and_then(Value::as_u64)
                    && found.as_f64() == value.and_then(Value::as_f64)
                    && found.as_text().as_deref() == value.map(Value::to_string).as_deref()
            }
        }
    }

    #[test]
    fn what_is_found_is_what_a_whole_parse_finds() {
        let mut pointers = Pointers::default();
        let places: Vec<_> = POINTERS.iter().map(|pointer| pointers.add(pointer)).collect();
        let mut room = Room::default();
        let found = pointers.read(DOCUMENT.as_bytes(), &mut room).unwrap();
        let whole: Value = serde_json::from_str(DOCUMENT).unwrap();
        for (pointer, place) in POINTERS.iter().zip(places) {
            assert!(same(&found[place], whole.pointer(pointer)), "{pointer}: {:?}", found[place]);
        }
    }

    #[test]
    fn a_pointer_that_is_asked_for_twice_is_looked_for_once() {
        let mut pointers = Pointers::default();
        assert_eq!((pointers.add("/a"), pointers.add("/b"), pointers.add("/a")), (0, 1, 0));
        let mut room = Room::default();
        let found = pointers.read(br#"{"b":1,"a":2,"a":3}"#, &mut room).unwrap();
        assert_eq!(found, [Found::Unsigned(3), Found::Unsigned(1)], "the last one counts");
    }

    #[test]
    fn more_pointers_than_a_room_holds_without_allocating_are_all_found() {
        for count in [FEW, FEW + 1, 3 * FEW] {
            let mut pointers = Pointers::default();
            let document: Vec<_> = (0..count).map(|number| format!("\"{number}\":{number}")).collect();
            let document = format!("{{{}}}", document.join(","));
            (0..count).for_each(|number| assert_eq!(pointers.add(&format!("/{number}")), number));
            let mut room = Room::default();
            let found = pointers.read(document.as_bytes(), &mut room).unwrap();
            let numbers: Vec<_> = found.iter().filter_map(Found::as_u64).collect();
            assert_eq!(numbers, (0..count as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_not_json_is_not_read_however_late_it_breaks() {
        let mut pointers = Pointers::default();
        pointers.add("/seq");
        let whole = DOCUMENT.trim();
        for end in 0..whole.len() {
            assert_eq!(
                pointers.read(&whole.as_bytes()[..end], &mut Room::default()),
                None,
                "{}",
                &whole[..end.min(20)]
            );
        }
        for wrong in [
            r#"{"seq":1}x"#,
            r#"{"seq":1,}"#,
            r#"{"seq":01}"#,
            r#"{"x":"\q","seq":1}"#,
            "\u{feff}{}",
            "{seq:1}",
        ] {
            assert_eq!(pointers.read(wrong.as_bytes(), &mut Room::default()), None, "{wrong}");
        }
        let deep = "[".repeat(1 << 16);
        assert_eq!(
            pointers.read(deep.as_bytes(), &mut Room::default()),
            None,
            "and never by an overflow of the stack"
        );
        let deep = format!("{{\"x\":{}{},\"seq\":1}}", "[".repeat(1 << 15), "]".repeat(1 << 15));
        assert_eq!(pointers.read(deep.as_bytes(), &mut Room::default()).unwrap(), [Found::Unsigned(1)]);
    }
}
