// SPDX-License-Identifier: MPL-2.0

//! AMF values cost their reader no more than a small multiple of their bytes, whatever they refer
//! to.

use gstrtmp2server::internal::amf0::{
    self, Error, Leading, MAX_COPIED, MAX_DEPTH, MAX_PROPERTIES, Value,
};
use gstrtmp2server::internal::flv::body::Script;
use gstrtmp2server::internal::rtmp::chunk::ChunkWriter;
use gstrtmp2server::internal::rtmp::command::Command;
use gstrtmp2server::internal::rtmp::message::type_id;
use gstrtmp2server::internal::rtmp::session::{
    MediaKind, Session, SessionConfig, SessionEvent, SupportedCodecs,
};
use proptest::prelude::*;

use crate::meter::{Cost, measure};
use crate::session::publisher;

const AMF3: u8 = 0x11;

/// Bytes of memory for each byte of input. A value of one byte costs its place in a growing list.
const GROWTH: usize = 200;

/// The same for all that is allocated on the way: a list is copied each time that it grows.
const ALLOCATIONS: usize = 2 * GROWTH;

/// Memory that does not depend on the input: copies by reference, and the lists of a reader.
const CONSTANT: usize = 3 * MAX_COPIED + 4096;

/// Bytes in AMF0 for each byte of AMF3: an integer of two bytes becomes a number of nine, and an
/// element of a mixed array gets its index as a name.
const REWRITING: usize = 16;

/// Parts of an AMF3 value, with references to anything.
#[derive(Debug, Clone)]
enum Part {
    Scalar(u8),
    Integer(u32),
    Double(f64),
    Date(f64),
    Text(Text),
    /// A byte array or a document.
    Blob(u8, Vec<u8>),
    Array(Vec<(Text, Part)>, Vec<Part>),
    /// Traits, values of the sealed members, dynamic members.
    Object(Traits, Vec<Part>, Vec<(Text, Part)>),
    /// A reference to a complex value with this marker: an earlier, a later or the same one.
    Reference(u8, u32),
}

#[derive(Debug, Clone)]
enum Text {
    Inline(Vec<u8>),
    Reference(u32),
}

#[derive(Debug, Clone)]
enum Traits {
    Inline {
        class: Text,
        members: Vec<Text>,
        is_dynamic: bool,
    },
    Reference(u32),
}

fn u29(out: &mut Vec<u8>, value: u32) {
    let value = value & 0x1FFF_FFFF;
    let septets = |shifts: &[u32]| {
        shifts
            .iter()
            .map(|shift| (value >> shift) as u8 | 0x80)
            .collect()
    };
    let front: Vec<u8> = match value {
        0..0x80 => vec![],
        0x80..0x4000 => septets(&[7]),
        0x4000..0x20_0000 => septets(&[14, 7]),
        _ => septets(&[22, 15, 8]),
    };
    out.extend(front);
    out.push(if value < 0x20_0000 {
        value as u8 & 0x7F
    } else {
        value as u8
    });
}

fn inline(out: &mut Vec<u8>, length: usize) {
    u29(out, (length as u32) << 1 | 1);
}

impl Text {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Text::Inline(bytes) => {
                inline(out, bytes.len());
                out.extend(bytes);
            }
            Text::Reference(index) => u29(out, index << 1),
        }
    }
}

fn write_members(out: &mut Vec<u8>, members: &[(Text, Part)]) {
    for (name, value) in members {
        name.write(out);
        value.write(out);
    }
    inline(out, 0);
}

impl Part {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Part::Scalar(marker) => out.push(*marker),
            Part::Integer(value) => {
                out.push(4);
                u29(out, *value);
            }
            Part::Double(value) => {
                out.push(5);
                out.extend(value.to_be_bytes());
            }
            Part::Date(value) => {
                out.extend([8, 1]);
                out.extend(value.to_be_bytes());
            }
            Part::Text(text) => {
                out.push(6);
                text.write(out);
            }
            Part::Blob(marker, bytes) => {
                out.push(*marker);
                inline(out, bytes.len());
                out.extend(bytes);
            }
            Part::Array(members, dense) => {
                out.push(9);
                inline(out, dense.len());
                write_members(out, members);
                dense.iter().for_each(|value| value.write(out));
            }
            Part::Object(traits, sealed, dynamic) => {
                out.push(0x0A);
                let mut is_open = true;
                match traits {
                    Traits::Reference(index) => u29(out, index << 2 | 1),
                    Traits::Inline {
                        class,
                        members,
                        is_dynamic,
                    } => {
                        let flags = u32::from(*is_dynamic) << 3 | 3;
                        u29(out, (members.len() as u32) << 4 | flags);
                        class.write(out);
                        members.iter().for_each(|name| name.write(out));
                        is_open = *is_dynamic;
                    }
                }
                sealed.iter().for_each(|value| value.write(out));
                if is_open {
                    write_members(out, dynamic);
                }
            }
            Part::Reference(marker, index) => {
                out.push(*marker);
                u29(out, index << 1);
            }
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![AMF3];
        self.write(&mut bytes);
        bytes
    }
}

fn name(text: &str) -> Text {
    Text::Inline(text.as_bytes().to_vec())
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        "[a-z]{1,6}".prop_map(|text| Text::Inline(text.into_bytes())),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Text::Inline),
        (500..2_000_usize).prop_map(|length| Text::Inline(vec![b'x'; length])),
        (0..6_u32).prop_map(Text::Reference),
        (0..6_u32).prop_map(Text::Reference),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let complex = prop_oneof![Just(7_u8), Just(8), Just(9), Just(10), Just(11), Just(12)];
    let leaf = prop_oneof![
        (0..4_u8).prop_map(Part::Scalar),
        any::<u32>().prop_map(Part::Integer),
        any::<f64>().prop_map(Part::Double),
        any::<f64>().prop_map(Part::Date),
        text().prop_map(Part::Text),
        text().prop_map(Part::Text),
        (complex.clone(), 0..8_u32).prop_map(|(marker, index)| Part::Reference(marker, index)),
        (
            prop_oneof![Just(7_u8), Just(11), Just(12)],
            prop::collection::vec(any::<u8>(), 0..40),
        )
            .prop_map(|(marker, bytes)| Part::Blob(marker, bytes)),
    ];
    leaf.prop_recursive(5, 120, 6, |inner| {
        let members = || prop::collection::vec((text(), inner.clone()), 0..5);
        let values = || prop::collection::vec(inner.clone(), 0..6);
        let traits = prop_oneof![
            (0..3_u32).prop_map(Traits::Reference),
            (text(), prop::collection::vec(text(), 0..4), any::<bool>()).prop_map(
                |(class, members, is_dynamic)| Traits::Inline {
                    class,
                    members,
                    is_dynamic
                }
            ),
        ];
        prop_oneof![
            (members(), values()).prop_map(|(members, dense)| Part::Array(members, dense)),
            (traits, values(), members())
                .prop_map(|(traits, sealed, dynamic)| Part::Object(traits, sealed, dynamic)),
        ]
    })
}

/// The numbers of values and of bytes of text in `value`, and its depth.
fn size(value: &Value) -> (usize, usize, usize) {
    let all = |parts: &mut dyn Iterator<Item = (usize, &Value)>| {
        parts.fold((1, 0, 0), |(values, texts, depth), (name, part)| {
            let part = size(part);
            (
                values + part.0,
                texts + name + part.1,
                depth.max(part.2 + 1),
            )
        })
    };
    match value {
        Value::StrictArray(values) => all(&mut values.iter().map(|value| (0, value))),
        Value::String(text) | Value::XmlDocument(text) => (1, text.len(), 0),
        Value::Bytes(bytes) => (1, bytes.len(), 0),
        other => match other.properties() {
            Some(properties) => {
                all(&mut properties.iter().map(|(name, value)| (name.len(), value)))
            }
            None => (1, 0, 0),
        },
    }
}

/// Checks what `input` makes and costs.
fn check(input: &[u8]) -> Result<(), TestCaseError> {
    let (leading, cost) = measure(|| amf0::read_leading(input, MAX_PROPERTIES));
    prop_assert!(
        cost.peak <= GROWTH * input.len() + CONSTANT,
        "{cost:?} for {}",
        input.len()
    );
    let most = ALLOCATIONS * input.len() + CONSTANT;
    prop_assert!(cost.allocated <= most, "{cost:?} for {}", input.len());
    let Leading {
        decoded,
        length,
        error,
    } = leading;
    prop_assert_eq!(error.is_none(), length == input.len());
    let sizes: Vec<_> = decoded.values.iter().map(size).collect();
    let values: usize = sizes.iter().map(|(values, ..)| values).sum();
    prop_assert!(values <= MAX_PROPERTIES);
    prop_assert!(sizes.iter().all(|(_, _, depth)| *depth <= MAX_DEPTH));
    // Bytes that are no text become three, and elements of mixed arrays get names.
    let texts: usize = sizes.iter().map(|(_, texts, _)| texts).sum();
    prop_assert!(texts <= 5 * input.len() + MAX_COPIED);
    let mut written = Vec::new();
    amf0::write_all(&mut written, &decoded.values);
    prop_assert!(written.len() <= REWRITING * input.len() + MAX_COPIED);
    Ok(())
}

proptest! {
    #![proptest_config(properties::cases(500))]

    #[test]
    fn values_with_references_to_anything_are_bounded(
        parts in prop::collection::vec(part(), 1..4),
        mutations in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = vec![2, 0, 1, b'a'];
        parts.iter().for_each(|part| bytes.extend(part.to_bytes()));
        check(&bytes)?;
        let object = [&bytes[..4], &[3, 0, 1, b'b'], &bytes[4..], &[0, 0, 9]].concat();
        check(&object)?;
        let length = bytes.len();
        for (position, byte) in mutations {
            bytes[position % length] = byte;
        }
        check(&bytes)?;
    }

    #[test]
    fn repeated_bytes_are_bounded(
        unit in prop::collection::vec(any::<u8>(), 1..12),
        front in prop::collection::vec(any::<u8>(), 0..12),
        count in 1..20_000_usize,
    ) {
        let values = unit.repeat(count);
        check(&[&front[..], &values].concat())?;
        check(&[&[AMF3][..], &front, &values].concat())?;
    }
}

#[test]
fn references_to_the_same_and_to_later_values_are_read_once() {
    // {a: <itself>, b: [<the object>, <itself>, <a later one>], width: 320}
    let array = Part::Array(
        vec![],
        vec![
            Part::Reference(10, 0),
            Part::Reference(9, 1),
            Part::Reference(9, 77),
        ],
    );
    let dynamic = vec![
        (name("a"), Part::Reference(10, 0)),
        (name("b"), array),
        (name("width"), Part::Integer(320)),
        // Again under the name of the first.
        (Text::Reference(0), Part::Text(Text::Reference(1))),
    ];
    let traits = Traits::Inline {
        class: name(""),
        members: vec![],
        is_dynamic: true,
    };
    let bytes = Part::Object(traits, vec![], dynamic).to_bytes();
    let values = amf0::read_all(&bytes).unwrap().values;
    let nothing = vec![Value::Undefined; 3];
    let expected = Value::Object(vec![
        ("a".to_owned(), Value::Undefined),
        ("b".to_owned(), Value::StrictArray(nothing)),
        ("width".to_owned(), 320.0.into()),
        ("a".to_owned(), "b".into()),
    ]);
    assert_eq!(values, [expected]);

    // In AMF0 they are kept as they came.
    let mut bytes = vec![3, 0, 1, b'a', 7, 0, 0, 0, 1, b'b', 7, 0xFF, 0xFF];
    bytes.extend([0, 1, b'c', 0x0A, 0, 0, 0, 1, 7, 0, 1, 0, 0, 9]);
    let values = amf0::read_all(&bytes).unwrap().values;
    let array = Value::StrictArray(vec![Value::Reference(1)]);
    let expected = Value::Object(vec![
        ("a".to_owned(), Value::Reference(0)),
        ("b".to_owned(), Value::Reference(0xFFFF)),
        ("c".to_owned(), array),
    ]);
    assert_eq!(values, [expected]);
    let mut written = Vec::new();
    amf0::write_all(&mut written, &values);
    assert_eq!(written, bytes);
}

#[test]
fn references_to_later_texts_and_traits_are_errors_after_the_values_before_them() {
    let width = Part::Array(vec![(name("width"), Part::Integer(320))], vec![]);
    let later_text = Part::Array(
        vec![],
        vec![Part::Text(Text::Reference(0)), Part::Text(name("a"))],
    );
    let own_traits = Part::Object(Traits::Reference(0), vec![], vec![]);
    for bad in [later_text, own_traits] {
        let bytes = [width.to_bytes(), bad.to_bytes()].concat();
        let leading = amf0::read_leading(&bytes, MAX_PROPERTIES);
        assert_eq!(leading.error, Some(Error::BadReference(0)));
        let read = &leading.decoded.values[..];
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].get("width"), Some(&320.0.into()));
    }
}

/// Values around a null, so many times.
fn nested(front: &[u8], count: usize) -> Vec<u8> {
    let mut bytes = front.repeat(count);
    bytes.push(if front[0] == AMF3 { 0 } else { 5 });
    bytes
}

#[test]
fn nesting_is_bounded_in_every_container() {
    let amf0: [&[u8]; 4] = [
        &[3, 0, 1, b'a'],
        &[8, 0, 0, 0, 0, 0, 1, b'a'],
        &[0x0A, 0, 0, 0, 1],
        &[0x10, 0, 1, b'C', 0, 1, b'a'],
    ];
    for front in amf0 {
        let read = |count| amf0::read_all(&nested(front, count)).map(|_| ());
        assert_ne!(read(MAX_DEPTH), Err(Error::TooDeep), "{front:02x?}");
        for count in [MAX_DEPTH + 1, 1_000_000] {
            assert_eq!(read(count), Err(Error::TooDeep), "{front:02x?}");
            let scan = amf0::scan(&nested(front, count), usize::MAX);
            assert_eq!(scan.error, Some(Error::TooDeep), "{front:02x?}");
        }
    }
    let amf3: [&[u8]; 5] = [
        // Dense and named elements.
        &[9, 3, 1],
        &[9, 1, 3, b'a'],
        // Dynamic and sealed members, and members of traits by reference after the first.
        &[0x0A, 0x0B, 1, 3, b'a'],
        &[0x0A, 0x13, 1, 3, b'a'],
        &[0x0A, 1],
    ];
    for front in amf3 {
        for count in [MAX_DEPTH + 1, 1_000_000] {
            // Traits with one sealed member.
            let first = [AMF3, 0x0A, 0x13, 1, 3, b'a'];
            let bytes = [&first[..], &front.repeat(count), &[1]].concat();
            assert_eq!(amf0::read_all(&bytes), Err(Error::TooDeep), "{front:02x?}");
            // AMF3 in AMF0 goes on from the depth around it.
            let around = [3, 0, 1, b'a'].repeat(MAX_DEPTH - 1);
            let bytes = [&around[..], &first, &front.repeat(count.min(2))].concat();
            assert_eq!(amf0::read_all(&bytes), Err(Error::TooDeep), "{front:02x?}");
        }
    }
}

/// AMF values of about `length` bytes, each of which could be expensive in a way of its own.
fn shapes(length: usize) -> Vec<(&'static str, Vec<u8>)> {
    let many = |unit: &[u8]| unit.repeat(length / unit.len());
    let amf3_array = |front: &[u8], unit: &[u8]| {
        let count = length / unit.len();
        let mut bytes = vec![AMF3, 9];
        inline(&mut bytes, count + usize::from(!front.is_empty()));
        bytes.push(1);
        [bytes, front.to_vec(), unit.repeat(count)].concat()
    };
    let long_text = |text: &[u8]| {
        let mut bytes = vec![6];
        inline(&mut bytes, text.len());
        [&bytes[..], text].concat()
    };
    let object_of = |members: usize| {
        let mut bytes = vec![0x0A];
        u29(&mut bytes, (members as u32) << 4 | 3);
        bytes.push(1);
        bytes.extend([3, b'a'].repeat(members));
        bytes.extend(vec![1; members]);
        bytes
    };
    // A quarter is a text, and the rest refers to it.
    let quarter = vec![b'x'; length / 4];
    vec![
        ("AMF0 nulls", many(&[5])),
        ("AMF0 objects", many(&[3, 0, 0, 9])),
        (
            "AMF0 array",
            [&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF][..], &many(&[5])].concat(),
        ),
        (
            "AMF0 properties",
            [&[3][..], &many(&[0, 1, b'a', 5])].concat(),
        ),
        ("AMF0 empty names", [&[3][..], &many(&[0, 0, 5])].concat()),
        ("AMF0 references", many(&[7, 0, 0])),
        ("AMF0 deep arrays", many(&[0x0A, 0, 0, 0, 1].repeat(30))),
        ("AMF0 text", {
            let length = (length as u32).to_be_bytes();
            [&[0x0C][..], &length, &many(&[0xFF])].concat()
        }),
        ("AMF0 texts", many(&[2, 0, 1, 0xFF])),
        ("AMF3 in AMF0", many(&[AMF3, 1])),
        ("AMF3 nulls", amf3_array(&[], &[1])),
        ("AMF3 integers", amf3_array(&[], &[4, 1])),
        (
            "AMF3 text",
            [&[AMF3][..], &long_text(&many(&[0xFF]))].concat(),
        ),
        ("AMF3 texts", amf3_array(&[], &[6, 3, 0xFF])),
        (
            "AMF3 text and references",
            amf3_array(&long_text(&quarter), &[6, 0]),
        ),
        ("AMF3 references to objects", amf3_array(&[], &[0x0A, 0])),
        ("AMF3 references to arrays", amf3_array(&[], &[9, 0])),
        (
            "AMF3 objects by traits",
            amf3_array(&object_of(9), &[0x0A, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ),
        ("AMF3 traits", amf3_array(&[], &object_of(4))),
        (
            "AMF3 traits of many members",
            [&[AMF3][..], &object_of(length / 3)].concat(),
        ),
        ("AMF3 named elements", {
            [&[AMF3, 9, 1][..], &many(&[3, b'a', 1]), &[1]].concat()
        }),
        ("AMF3 names by reference", {
            [&[AMF3, 9, 1, 3, b'a', 1][..], &many(&[0, 1]), &[1]].concat()
        }),
        ("AMF3 bytes", {
            let mut bytes = vec![AMF3, 0x0C];
            inline(&mut bytes, length);
            [bytes, many(&[7])].concat()
        }),
    ]
}

/// Fails if twice the input costs more than twice as much, from one doubling to the next.
#[track_caller]
fn assert_linear(what: &str, costs: &[Cost]) {
    for pair in costs.windows(2) {
        let (one, two) = (pair[0], pair[1]);
        // Lists grow in powers of two, and a message has its first buffer.
        let limit = |cost: usize| 2 * cost + cost / 2 + 16 * 1024;
        assert!(two.allocated <= limit(one.allocated), "{what}: {costs:?}");
        assert!(two.peak <= limit(one.peak), "{what}: {costs:?}");
    }
}

const LENGTHS: [usize; 6] = [4_000, 8_000, 16_000, 32_000, 64_000, 128_000];

/// Measures `work` with each shape in each length, after a front.
fn assert_linear_for(front: &[u8], work: impl Fn(&[u8]) -> Cost) {
    for index in 0..shapes(0x100).len() {
        let inputs = LENGTHS.map(|length| shapes(length).swap_remove(index));
        let costs = inputs
            .each_ref()
            .map(|(_, values)| work(&[front, values].concat()));
        assert_linear(inputs[0].0, &costs);
    }
}

#[test]
fn costs_of_values_are_linear() {
    assert_linear_for(&[], |input| {
        measure(|| {
            let leading = amf0::read_leading(input, usize::MAX);
            let mut written = Vec::new();
            amf0::write_all(&mut written, &leading.decoded.values);
            written.len()
        })
        .1
    });
}

/// The string of this name.
fn named(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    amf0::write_value(&mut bytes, &name.into());
    bytes
}

#[test]
fn costs_of_script_tags_and_commands_are_linear() {
    for front in [vec![], named("onMetaData"), named("@setDataFrame")] {
        assert_linear_for(&front, |input| measure(|| Script::parse(input)).1);
        assert_linear_for(&front, |input| measure(|| Command::read(input)).1);
    }
}

/// Reads a message of a publisher's data, and returns the lengths of the script data that it makes.
fn published(type_id: u8, body: &[u8]) -> (Vec<usize>, Cost) {
    let mut session = Session::new(SessionConfig::default());
    let start = publisher(&[]);
    let mut read = |mut bytes: &[u8]| {
        let mut lengths = Vec::new();
        while let Some(event) = session.read(&mut bytes).unwrap() {
            match event {
                SessionEvent::Connect(_) => session.accept_connect(&SupportedCodecs::default()),
                SessionEvent::Publish(_) => session.accept_publish(),
                SessionEvent::Media(media) => {
                    assert_eq!(media.kind, MediaKind::Data);
                    lengths.push(media.payload.body().len());
                }
                _ => {}
            }
        }
        lengths
    };
    read(&start);
    let mut message = Vec::new();
    ChunkWriter::default().write(&mut message, 4, type_id, 1, body);
    measure(|| read(&message))
}

#[test]
fn costs_of_data_messages_are_linear_and_their_script_data_is_bounded() {
    for front in [
        vec![],
        named("onMetaData"),
        [named("@setDataFrame"), named("onMetaData")].concat(),
    ] {
        for type_id in [type_id::DATA_AMF0, type_id::DATA_AMF3] {
            assert_linear_for(&front, |body| {
                let (lengths, cost) = published(type_id, body);
                for length in lengths {
                    assert!(length <= REWRITING * body.len() + MAX_COPIED);
                }
                cost
            });
        }
    }
}

#[test]
fn one_long_text_and_many_references_end_at_the_limit_of_copies() {
    let (_, bytes) = shapes(64_000)
        .into_iter()
        .find(|(name, _)| *name == "AMF3 text and references")
        .unwrap();
    let (read, cost) = measure(|| amf0::read_leading(&bytes, usize::MAX));
    assert_eq!(read.error, Some(Error::TooLarge));
    assert!(cost.peak <= 2 * MAX_COPIED, "{cost:?}");
}
