// SPDX-License-Identifier: MPL-2.0

//! Aggregate messages: several messages in one, laid out like FLV tags (section 7.1.6).

use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u24, be_u32};
use nom::{IResult, Parser};

use super::limits::MAX_AGGREGATE_PARTS;
use super::message::type_id;

/// A message within an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AggregatePart<'a> {
    pub type_id: u8,
    /// Milliseconds, modulo 2^32.
    pub timestamp: u32,
    pub body: &'a [u8],
}

/// Splits an aggregate whose own timestamp is `timestamp`. The first part gets that timestamp, and
/// the others keep their distance from the first. Splitting ends at the first truncated part.
pub fn split(body: &[u8], timestamp: u32) -> AggregateParts<'_> {
    AggregateParts {
        rest: body,
        timestamp,
        first: None,
        count: 0,
        nested: 0,
    }
}

/// The parts of an aggregate, without aggregates among them.
#[derive(Debug)]
pub struct AggregateParts<'a> {
    rest: &'a [u8],
    timestamp: u32,
    /// Time of the first part.
    first: Option<u32>,
    count: usize,
    nested: u32,
}

impl AggregateParts<'_> {
    /// Returns the number of aggregates within this one so far, and one for a rest that can't be
    /// split: the messages that it had are lost.
    pub fn lost(&self) -> u32 {
        self.nested + u32::from(!self.rest.is_empty())
    }
}

impl<'a> Iterator for AggregateParts<'a> {
    type Item = AggregatePart<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.count < MAX_AGGREGATE_PARTS {
            let (after, (type_id, time, body)) = part(self.rest).ok()?;
            // The back pointer after the last part may be missing.
            self.rest = be_u32::<_, ()>(after).map_or(after, |(after, _)| after);
            let first = *self.first.get_or_insert(time);
            if type_id == type_id::AGGREGATE {
                self.nested += 1;
                continue;
            }
            self.count += 1;
            return Some(AggregatePart {
                type_id,
                timestamp: self.timestamp.wrapping_add(time.wrapping_sub(first)),
                body,
            });
        }
        None
    }
}

fn part(input: &[u8]) -> IResult<&[u8], (u8, u32, &[u8]), ()> {
    let (rest, (type_id, length, time, time_high, _stream)) =
        (be_u8, be_u24, be_u24, be_u8, be_u24).parse(input)?;
    let (rest, body) = take(length)(rest)?;
    Ok((rest, (type_id, u32::from(time_high) << 24 | time, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(type_id: u8, time: u32, body: &[u8]) -> Vec<u8> {
        let time = time.to_be_bytes();
        let mut tag = vec![type_id];
        tag.extend(&(body.len() as u32).to_be_bytes()[1..]);
        tag.extend([time[1], time[2], time[3], time[0], 0, 0, 0]);
        tag.extend(body);
        tag
    }

    fn with_back_pointer(tag: Vec<u8>) -> Vec<u8> {
        let back_pointer = (tag.len() as u32).to_be_bytes();
        [tag, back_pointer.to_vec()].concat()
    }

    #[test]
    fn parts_keep_their_time_distances() {
        let body = [
            with_back_pointer(tag(8, 0x0100_0000, b"ab")),
            with_back_pointer(tag(22, 0x0100_0001, b"nested")),
            tag(9, 0x0100_0021, b""),
        ]
        .concat();
        let parts: Vec<_> = split(&body, u32::MAX).collect();
        let expected = [(8, u32::MAX, &b"ab"[..]), (9, 32, b"")];
        assert_eq!(
            parts,
            expected.map(|(type_id, timestamp, body)| AggregatePart {
                type_id,
                timestamp,
                body
            })
        );
    }

    #[test]
    fn truncated_part_ends_the_split() {
        let mut body = with_back_pointer(tag(8, 0, b"ab"));
        body.extend(&tag(9, 0, b"abc")[..13]);
        assert_eq!(split(&body, 0).count(), 1);
        assert_eq!(split(b"", 0).count(), 0);
    }

    #[test]
    fn lost_parts_are_counted() {
        let lost = |body: &[u8]| {
            let mut parts = split(body, 0);
            parts.by_ref().for_each(drop);
            parts.lost()
        };
        let whole = with_back_pointer(tag(8, 0, b"ab"));
        let nested = with_back_pointer(tag(22, 0, &whole));
        assert_eq!(lost(&whole), 0);
        assert_eq!(lost(&whole[..whole.len() - 4]), 0);
        assert_eq!(lost(&[&whole[..], &whole[..12]].concat()), 1);
        assert_eq!(lost(&[&nested[..], &whole, &nested].concat()), 2);
        assert_eq!(lost(b"no"), 1);
        let most = with_back_pointer(tag(8, 0, b"")).repeat(MAX_AGGREGATE_PARTS);
        assert_eq!(lost(&most), 0);
        let many = with_back_pointer(tag(8, 0, b"")).repeat(MAX_AGGREGATE_PARTS + 1);
        assert_eq!(lost(&many), 1);
    }
}
