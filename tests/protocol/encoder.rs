// SPDX-License-Identifier: MPL-2.0

//! A chunk encoder for tests, which writes any legal form of the same messages.

use gstrtmp2server::internal::rtmp::Headroom;
use gstrtmp2server::internal::rtmp::chunk::{ChunkReader, ReaderLimits};
use gstrtmp2server::internal::rtmp::limits::MAX_BUFFERED;
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub csid: u32,
    pub type_id: u8,
    pub msid: u32,
    pub timestamp: u32,
    pub body: Vec<u8>,
}

/// A message, and its choices of form.
#[derive(Debug, Clone)]
pub struct Plan {
    pub sent: Sent,
    /// The highest chunk type to use where it is legal.
    pub fmt: u8,
    /// The basic header may take more bytes than it needs.
    pub long_csid: bool,
    /// Type 3 chunks within the message repeat the extended timestamp.
    pub repeat: bool,
}

/// A control message before the next chunk, if any.
#[derive(Debug, Clone)]
pub enum Between {
    Nothing,
    ChunkSize(u32),
    Ping(u32),
}

#[derive(Debug, Default)]
struct State {
    last: Option<Sent>,
    delta: u32,
    extended: bool,
}

struct Open {
    plan: Plan,
    position: usize,
    extended: Option<u32>,
}

fn basic(out: &mut Vec<u8>, fmt: u8, csid: u32, long: bool) {
    let fmt = fmt << 6;
    if csid < 64 {
        out.push(fmt | csid as u8);
    } else if csid < 320 && !long {
        out.extend([fmt, (csid - 64) as u8]);
    } else {
        let id = csid - 64;
        out.extend([fmt | 1, (id & 0xFF) as u8, (id >> 8) as u8]);
    }
}

fn u24(out: &mut Vec<u8>, value: u32) {
    out.extend([(value >> 16) as u8, (value >> 8) as u8, value as u8]);
}

impl State {
    /// Writes a header of the highest type that holds the message's fields.
    fn header(&mut self, out: &mut Vec<u8>, plan: &Plan) -> Option<u32> {
        let sent = &plan.sent;
        let fmt = match &self.last {
            Some(last) if last.msid == sent.msid => {
                let delta = sent.timestamp.wrapping_sub(last.timestamp);
                let same = (last.body.len(), last.type_id) == (sent.body.len(), sent.type_id);
                let far = (delta as i32).unsigned_abs() > 10_000;
                match plan.fmt {
                    3 if same && delta == self.delta && !far => 3,
                    // Encoders that write type 2 write type 3 where a delta repeats.
                    2 | 3 if same && delta != self.delta => 2,
                    0 => 0,
                    _ => 1,
                }
            }
            _ => 0,
        };
        let base = self.last.as_ref().map_or(0, |last| last.timestamp);
        let time = match fmt {
            0 => sent.timestamp,
            _ => sent.timestamp.wrapping_sub(base),
        };
        basic(out, fmt, sent.csid, plan.long_csid);
        if fmt < 3 {
            self.extended = time >= 0xFF_FFFF;
            u24(out, if self.extended { 0xFF_FFFF } else { time });
        }
        if fmt < 2 {
            u24(out, sent.body.len() as u32);
            out.push(sent.type_id);
        }
        if fmt == 0 {
            out.extend(sent.msid.to_le_bytes());
        }
        if self.extended {
            out.extend(time.to_be_bytes());
        }
        self.delta = time;
        self.last = Some(sent.clone());
        self.extended.then_some(time)
    }
}

/// Writes each lane's messages in order, and interleaves the lanes chunk by chunk as in `picks`.
pub fn encode(lanes: &[Vec<Plan>], picks: &[(usize, Between)]) -> (Vec<u8>, Vec<Sent>) {
    let mut out = Vec::new();
    let mut order = Vec::new();
    let mut chunk_size = 128;
    let mut states: Vec<State> = lanes.iter().map(|_| State::default()).collect();
    let mut next = vec![0; lanes.len()];
    let mut open: Vec<Option<Open>> = lanes.iter().map(|_| None).collect();
    let mut picks = picks.iter().cycle();
    loop {
        let ready: Vec<usize> = (0..lanes.len())
            .filter(|&lane| open[lane].is_some() || next[lane] < lanes[lane].len())
            .collect();
        if ready.is_empty() {
            return (out, order);
        }
        let (pick, between) = picks.next().expect("picks are not empty");
        match *between {
            Between::Nothing => {}
            Between::ChunkSize(size) => {
                out.extend([2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
                out.extend(size.to_be_bytes());
                chunk_size = size as usize;
            }
            Between::Ping(value) => {
                out.extend([2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 6]);
                out.extend(value.to_be_bytes());
                let body = [&[0, 6][..], &value.to_be_bytes()].concat();
                let (csid, type_id, msid, timestamp) = (2, 4, 0, 0);
                order.push(Sent {
                    csid,
                    type_id,
                    msid,
                    timestamp,
                    body,
                });
            }
        }
        let lane = ready[pick % ready.len()];
        match &mut open[lane] {
            Some(message) => {
                basic(&mut out, 3, message.plan.sent.csid, message.plan.long_csid);
                if let Some(time) = message.extended.filter(|_| message.plan.repeat) {
                    out.extend(time.to_be_bytes());
                }
            }
            empty => {
                let mut plan = lanes[lane][next[lane]].clone();
                next[lane] += 1;
                let extended = states[lane].header(&mut out, &plan);
                // Payload that starts like the timestamp can't be distinguished from a repeated
                // one.
                let first = plan.sent.body.first();
                plan.repeat |= extended.is_some_and(|t| Some(&t.to_be_bytes()[0]) == first);
                *empty = Some(Open {
                    plan,
                    position: 0,
                    extended,
                });
            }
        }
        let message = open[lane].as_mut().expect("it was opened");
        let body = &message.plan.sent.body;
        let end = body.len().min(message.position + chunk_size);
        out.extend(&body[message.position..end]);
        message.position = end;
        if end == body.len() {
            order.push(message.plan.sent.clone());
            open[lane] = None;
        }
    }
}

/// Reads in pieces whose sizes are `steps`, repeatedly.
pub fn read(bytes: &[u8], steps: &[usize]) -> Vec<Sent> {
    let mut reader = ChunkReader::new(ReaderLimits::default(), Headroom { front: 11, back: 4 });
    let mut messages = Vec::new();
    let mut rest = bytes;
    let mut steps = steps.iter().cycle();
    while !rest.is_empty() {
        let step = rest.len().min(*steps.next().expect("steps are not empty"));
        let (mut piece, after) = rest.split_at(step);
        rest = after;
        while let Some(message) = reader.read(&mut piece).expect("legal chunks") {
            messages.push(Sent {
                csid: message.csid,
                type_id: message.type_id,
                msid: message.msid,
                timestamp: message.timestamp,
                body: message.payload.body().to_vec(),
            });
        }
        assert!(piece.is_empty());
        assert!(reader.buffered() <= MAX_BUFFERED);
    }
    assert_eq!(reader.buffered(), 0, "all messages were whole");
    messages
}

fn timestamp() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..2000_u32,
        1 => (0..2000_u32).prop_map(|t| 0xFF_FFFF - 1000 + t),
        1 => (0..2000_u32).prop_map(|t| 0x7FFF_FC18 + t),
        1 => (0..2000_u32).prop_map(|t| 0_u32.wrapping_sub(1000).wrapping_add(t)),
        1 => any::<u32>(),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let length = prop_oneof![Just(0_usize), 1..5_usize, 120..140_usize, 0..2000_usize];
    let kind = prop_oneof![Just(8_u8), Just(9), Just(18), Just(20), Just(99)];
    let choices = (0..4_u8, any::<bool>(), any::<bool>());
    (timestamp(), kind, 0..3_u32, length, 1..0x7F_u8, choices).prop_map(
        |(timestamp, type_id, msid, length, fill, (fmt, long_csid, repeat))| Plan {
            sent: Sent {
                csid: 0,
                type_id,
                msid,
                timestamp,
                body: vec![fill; length],
            },
            fmt,
            long_csid,
            repeat,
        },
    )
}

/// Lanes of messages, each lane on a chunk stream of its own.
pub fn lanes() -> impl Strategy<Value = Vec<Vec<Plan>>> {
    let csids = Just([3_u32, 63, 64, 319, 320, 65_599]).prop_shuffle();
    let lanes = prop::collection::vec(prop::collection::vec(plan(), 1..6), 1..6);
    (csids, lanes).prop_map(|(csids, mut lanes)| {
        for (lane, csid) in lanes.iter_mut().zip(csids) {
            for plan in lane {
                plan.sent.csid = csid;
            }
        }
        lanes
    })
}

/// Control messages between chunks are written in one chunk: the longest has this many bytes.
const MIN_CHUNK_SIZE: u32 = 6;

pub fn picks() -> impl Strategy<Value = Vec<(usize, Between)>> {
    let size = prop_oneof![
        MIN_CHUNK_SIZE..200,
        Just(4096),
        Just(60_000),
        Just(0xFF_FFFF)
    ];
    let between = prop_oneof![
        8 => Just(Between::Nothing),
        1 => size.prop_map(Between::ChunkSize),
        1 => any::<u32>().prop_map(Between::Ping),
    ];
    prop::collection::vec((0..60_usize, between), 1..40)
}
