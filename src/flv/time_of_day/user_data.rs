// SPDX-License-Identifier: MPL-2.0

//! Unregistered user data in coded pictures: SEI messages of H.264, HEVC and VVC, and metadata OBUs of
//! AV1.

use crate::flv::config::bits::unescape_up_to;
use crate::flv::config::obus;
use crate::flv::picture::{CodedPicture, NalUnits, PictureCodec};

/// Most NAL units or OBUs of a picture that are looked at: more than any encoder makes, and little work
/// for a picture that has nothing else.
const MAX_UNITS: usize = 1024;

/// Most bytes of an SEI NAL unit that are read. Captions are the largest ones.
const MAX_SEI: usize = 4096;

/// Most SEI messages in a picture.
const MAX_MESSAGES: usize = 1024;

/// Payload type of user data with a UUID.
const SEI_USER_DATA_UNREGISTERED: u32 = 5;

const OBU_METADATA: u8 = 5;

/// Types of metadata that AV1 leaves to applications.
const METADATA_USER_PRIVATE: std::ops::RangeInclusive<u8> = 6..=31;

/// The messages of user data of one picture, in order. Not an iterator, since a message is borrowed
/// from the one that is read.
pub(super) struct UserData<'a> {
    units: Units<'a>,
    units_left: usize,
    messages_left: usize,
    /// The present SEI NAL unit without its header and without the bytes that prevent start codes.
    sei: Vec<u8>,
    /// Offset of the next message in it.
    offset: usize,
}

enum Units<'a> {
    Nals(PictureCodec, NalUnits<'a>),
    Obus(Box<dyn Iterator<Item = (u8, &'a [u8])> + 'a>),
    None,
}

impl<'a> UserData<'a> {
    pub(super) fn new(picture: &CodedPicture<'a>) -> Self {
        let data = picture.data;
        let units = match picture.codec {
            PictureCodec::Avc | PictureCodec::Hevc | PictureCodec::Vvc => {
                Units::Nals(picture.codec, NalUnits::new(picture.nal_length_size, data))
            }
            PictureCodec::Av1 => Units::Obus(Box::new(obus(data))),
            _ => Units::None,
        };
        UserData {
            units,
            units_left: MAX_UNITS,
            messages_left: MAX_MESSAGES,
            sei: Vec::new(),
            offset: 0,
        }
    }

    /// Returns the next message, which starts with its UUID.
    pub(super) fn next_message(&mut self) -> Option<&[u8]> {
        loop {
            if let Some((start, end)) = self.next_of_sei() {
                return Some(&self.sei[start..end]);
            }
            self.units_left = self.units_left.checked_sub(1)?;
            match &mut self.units {
                Units::None => return None,
                Units::Nals(codec, nals) => {
                    let payload = sei_payload(*codec, nals.next()?);
                    self.sei = payload.map_or_else(Vec::new, |sei| unescape_up_to(sei, MAX_SEI));
                    self.offset = 0;
                }
                Units::Obus(obus) => {
                    let (kind, payload) = obus.next()?;
                    if kind == OBU_METADATA
                        && let Some((metadata, message)) = payload.split_first()
                        && METADATA_USER_PRIVATE.contains(metadata)
                    {
                        return Some(message);
                    }
                }
            }
        }
    }

    /// Returns the place of the next message of user data in the present SEI NAL unit.
    fn next_of_sei(&mut self) -> Option<(usize, usize)> {
        loop {
            let mut rest = self.sei.get(self.offset..)?;
            // The last byte holds the trailing bits.
            if rest.len() < 2 {
                return None;
            }
            self.messages_left = self.messages_left.checked_sub(1)?;
            let (kind, size) = (sei_number(&mut rest)?, sei_number(&mut rest)?);
            let start = self.sei.len() - rest.len();
            let end = start.saturating_add(size as usize);
            self.offset = end;
            if kind == SEI_USER_DATA_UNREGISTERED && end <= self.sei.len() {
                return Some((start, end));
            }
        }
    }
}

/// Returns a NAL unit without its header if it is an SEI.
fn sei_payload(codec: PictureCodec, nal: &[u8]) -> Option<&[u8]> {
    const AVC_SEI: u8 = 6;
    /// Before the slices and after them.
    const HEVC_SEI: [u8; 2] = [39, 40];
    const VVC_SEI: [u8; 2] = [23, 24];
    match codec {
        PictureCodec::Avc => (nal.first()? & 0x1F == AVC_SEI).then(|| &nal[1..]),
        PictureCodec::Hevc if HEVC_SEI.contains(&(nal.first()? >> 1 & 0x3F)) => nal.get(2..),
        PictureCodec::Vvc if VVC_SEI.contains(&(nal.get(1)? >> 3)) => nal.get(2..),
        _ => None,
    }
}

/// Reads a number of which each byte of 255 says that there is more.
fn sei_number(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u32;
    loop {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number = number.saturating_add(byte.into());
        if byte != 0xFF {
            return Some(number);
        }
    }
}
