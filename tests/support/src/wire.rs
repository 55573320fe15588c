// SPDX-License-Identifier: MPL-2.0

//! Chunks in every form that clients write them, independent of the tested code.

use super::flv::{AUDIO, Tag};

/// The time field that announces four more bytes.
const EXTENDED: u32 = 0xFF_FFFF;

/// The form of a message on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    pub csid: u32,
    /// Writes the basic header in three bytes, even if the csid needs fewer.
    pub long_csid: bool,
    pub msid: u32,
    pub chunk_size: usize,
    /// Chunks that continue a message repeat its extended timestamp.
    pub repeats_extended: bool,
}

impl Wire {
    pub fn on(csid: u32) -> Self {
        Wire {
            csid,
            long_csid: false,
            msid: 1,
            chunk_size: 128,
            repeats_extended: true,
        }
    }

    /// The form of most encoders: a chunk stream for each kind of tag.
    pub fn of(tag: &Tag) -> Self {
        Wire::on(if tag.kind == AUDIO { 4 } else { 6 })
    }

    /// Returns the chunks of a message that starts with a header of type 0.
    pub fn absolute(&self, tag: &Tag) -> Vec<Vec<u8>> {
        self.chunks(0, tag.timestamp, tag)
    }

    /// Returns the chunks of a message. `time` is a timestamp in type 0 and a delta in types 1 and
    /// 2. In type 3 it is the time field of the header that it continues.
    pub fn chunks(&self, fmt: u8, time: u32, tag: &Tag) -> Vec<Vec<u8>> {
        let mut front = self.basic_header(fmt);
        if fmt < 3 {
            front.extend(u24(time.min(EXTENDED)));
        }
        if fmt < 2 {
            front.extend(u24(tag.body.len() as u32));
            front.push(tag.kind);
        }
        if fmt == 0 {
            front.extend(self.msid.to_le_bytes());
        }
        let extended = if time >= EXTENDED {
            time.to_be_bytes().to_vec()
        } else {
            Vec::new()
        };
        front.extend(&extended);
        let first = tag.body.len().min(self.chunk_size);
        front.extend(&tag.body[..first]);
        let mut chunks = vec![front];
        for rest in tag.body[first..].chunks(self.chunk_size) {
            let mut chunk = self.basic_header(3);
            if self.repeats_extended {
                chunk.extend(&extended);
            }
            chunk.extend(rest);
            chunks.push(chunk);
        }
        chunks
    }

    fn basic_header(&self, fmt: u8) -> Vec<u8> {
        let fmt = fmt << 6;
        match self.csid {
            csid if self.long_csid || csid > 319 => {
                let [low, high] = ((csid - 64) as u16).to_le_bytes();
                vec![fmt | 1, low, high]
            }
            csid if csid > 63 => vec![fmt, (csid - 64) as u8],
            csid => vec![fmt | csid as u8],
        }
    }
}

fn u24(value: u32) -> [u8; 3] {
    let [_, a, b, c] = value.to_be_bytes();
    [a, b, c]
}
