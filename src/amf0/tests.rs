// SPDX-License-Identifier: MPL-2.0

use super::*;

fn round_trip(values: &[Value]) -> Vec<Value> {
    let mut bytes = Vec::new();
    write_all(&mut bytes, values);
    read_all(&bytes).unwrap().values
}

#[test]
fn every_kind_survives_a_round_trip() {
    let properties = vec![
        ("a".to_owned(), Value::Number(-1.5)),
        (String::new(), Value::Null),
        ("nested".to_owned(), Value::Object(vec![])),
    ];
    let values = vec![
        Value::from("connect"),
        Value::String("x".repeat(70_000)),
        Value::Boolean(true),
        Value::Undefined,
        Value::Reference(7),
        Value::Unsupported,
        Value::XmlDocument("<a/>".into()),
        Value::Date {
            millis: 1e12,
            timezone: -60,
        },
        Value::Object(properties.clone()),
        Value::EcmaArray(properties.clone()),
        Value::StrictArray(vec![Value::Null, Value::from(3.0)]),
        Value::TypedObject {
            class: "C".into(),
            properties,
        },
    ];
    assert_eq!(round_trip(&values), values);
}

#[test]
fn the_wire_form_matches_the_specification() {
    let mut bytes = Vec::new();
    let object = Value::Object(vec![("a".into(), Value::Boolean(true))]);
    write_all(&mut bytes, &[Value::from("hi"), Value::from(1.0), object]);
    let expected = [
        &[2, 0, 2, b'h', b'i'][..],
        &[0, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 1, b'a', 1, 1, 0, 0, 9],
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn nesting_and_properties_are_bounded() {
    let nest = |depth: usize| {
        let mut bytes = [3u8, 0, 1, b'a'].repeat(depth);
        bytes.push(5);
        read_all(&bytes)
    };
    assert!(nest(MAX_DEPTH).is_ok());
    assert_eq!(nest(MAX_DEPTH + 1), Err(Error::TooDeep));
    assert_eq!(nest(1_000_000), Err(Error::TooDeep));

    let mut many = vec![0x0A];
    many.extend((u32::MAX).to_be_bytes());
    many.extend([5; 2000]);
    assert_eq!(
        read_all(&many),
        Err(Error::TooManyProperties(MAX_PROPERTIES))
    );
}

#[test]
fn a_missing_end_marker_at_the_end_is_accepted() {
    let bytes = [8, 0, 0, 0, 1, 0, 1, b'a', 1, 1];
    let values = read_all(&bytes).unwrap().values;
    assert_eq!(
        values,
        [Value::EcmaArray(vec![("a".into(), Value::Boolean(true))])]
    );
}

#[test]
fn truncated_and_unknown_values_are_errors() {
    assert_eq!(read_all(&[0, 1]), Err(Error::Truncated));
    assert_eq!(read_all(&[2, 0, 9, b'a']), Err(Error::Truncated));
    assert_eq!(read_all(&[4]), Err(Error::UnknownMarker(4)));
}

#[test]
fn amf3_objects_and_references_are_read() {
    // {a: "ab", b: 5, c: "ab" by reference, d: [true]} of a dynamic, anonymous class.
    let mut bytes = vec![0x11, 0x0A, 0x0B, 0x01];
    bytes.extend([0x03, b'a', 0x06, 0x05, b'a', b'b']);
    bytes.extend([0x03, b'b', 0x04, 0x05]);
    bytes.extend([0x03, b'c', 0x06, 0x02]);
    bytes.extend([0x03, b'd', 0x09, 0x03, 0x01, 0x03]);
    bytes.push(0x01);
    let decoded = read_all(&bytes).unwrap();
    assert!(decoded.had_amf3);
    let object = &decoded.values[0];
    assert_eq!(object.get("a"), Some(&Value::from("ab")));
    assert_eq!(object.get("B"), Some(&Value::from(5.0)));
    assert_eq!(object.get("c"), Some(&Value::from("ab")));
    let array = Value::StrictArray(vec![Value::Boolean(true)]);
    assert_eq!(object.get("d"), Some(&array));
}

#[test]
fn amf3_integers_have_a_sign_and_four_bytes_at_most() {
    let read = |bytes: &[u8]| read_all(bytes).unwrap().values[0].as_number();
    assert_eq!(read(&[0x11, 4, 0x7F]), Some(127.0));
    assert_eq!(read(&[0x11, 4, 0xFF, 0xFF, 0xFF, 0xFF]), Some(-1.0));
    assert_eq!(
        read(&[0x11, 4, 0xBF, 0xFF, 0xFF, 0xFF]),
        Some(268_435_455.0)
    );
}

#[test]
fn amf3_nesting_and_properties_are_bounded() {
    // An array that claims many elements, and arrays within arrays.
    let mut wide = vec![0x11, 9, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    wide.extend([0x01; 2000]);
    assert_eq!(
        read_all(&wide),
        Err(Error::TooManyProperties(MAX_PROPERTIES))
    );
    let mut deep = vec![0x11];
    deep.extend([9, 3, 1].repeat(1000));
    assert_eq!(read_all(&deep), Err(Error::TooDeep));
    assert_eq!(read_all(&[0x11, 6, 4]), Err(Error::BadReference(2)));
}

#[test]
fn a_name_is_read_without_the_values_after_it() {
    let bytes = [2, 0, 2, b'o', b'k', 0xFF, 0xFF];
    assert_eq!(read_name(&bytes), Some((&b"ok"[..], 5)));
    assert_eq!(read_name(&[2, 0, 3, b'o']), None);
    assert_eq!(read_name(&[0; 9]), None);
}
