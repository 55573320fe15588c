// SPDX-License-Identifier: MPL-2.0

//! Script data: a name and its values, in messages and in FLV.

use super::read::read_name;
use super::scan::{scan, starts_with_scalar};

/// The name that publishers put before script data to be stored. Recorders that do not know it keep
/// it.
pub const SET_DATA_FRAME: &str = "@setDataFrame";

/// Values before the name that are skipped at most. Uniview cameras send two numbers.
const MAX_VALUES_BEFORE_NAME: usize = 16;

/// Returns the offset of `@setDataFrame`, or else of the first name. Some cameras put other values
/// there.
pub fn script_offset(body: &[u8]) -> Option<usize> {
    let mut first_name = None;
    // The selector byte of AMF3 messages. A zero is the marker of a number in AMF0, but no number
    // that is sent has the bytes of a string.
    let mut offset = usize::from(body.starts_with(&[0, 2]));
    for _ in 0..MAX_VALUES_BEFORE_NAME {
        let rest = &body[offset..];
        let length = match read_name(rest) {
            Some((name, _)) if name == SET_DATA_FRAME.as_bytes() => return Some(offset),
            Some((_, length)) => {
                first_name.get_or_insert(offset);
                length
            }
            // Objects belong to the name before them.
            None if first_name.is_some() && !starts_with_scalar(rest) => break,
            None => scan(rest, 1).length,
        };
        if length == 0 {
            break;
        }
        offset += length;
    }
    first_name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amf0::{Value, write_all};

    fn body(values: &[Value]) -> Vec<u8> {
        let mut body = Vec::new();
        write_all(&mut body, values);
        body
    }

    #[test]
    fn other_values_before_the_name_are_skipped() {
        let object = Value::Object(vec![("a".to_owned(), "@setDataFrame".into())]);
        let script = body(&["onMetaData".into(), object.clone()]);
        let stored = [body(&[SET_DATA_FRAME.into()]), script.clone()].concat();
        let values: [&[Value]; 5] = [
            &[],
            &[1.0.into(), 2.0.into()],
            &[Value::Null, Value::Boolean(true)],
            &[object],
            &vec![Value::Null; MAX_VALUES_BEFORE_NAME - 1],
        ];
        for values in values {
            let before = body(values);
            for script in [&script, &stored] {
                let body = [&before[..], script].concat();
                assert_eq!(script_offset(&body), Some(before.len()), "{values:?}");
            }
        }
        // Another text is no name if there is a request to store what follows.
        let before = body(&["text".into(), 1.0.into()]);
        let all = [before.clone(), stored].concat();
        assert_eq!(script_offset(&all), Some(before.len()));
    }

    #[test]
    fn selector_before_the_name_is_skipped() {
        let script = [&[0][..], &body(&["onMetaData".into()])].concat();
        assert_eq!(script_offset(&script), Some(1));
    }

    #[test]
    fn values_without_a_name_have_no_offset() {
        let many = [vec![Value::Null; MAX_VALUES_BEFORE_NAME], vec!["a".into()]].concat();
        let bodies = [&[][..], &[9], &[2, 0, 9, 1], &[0; 9], &body(&many)].map(<[u8]>::to_vec);
        for body in bodies {
            assert_eq!(script_offset(&body), None, "{body:02x?}");
        }
    }
}
