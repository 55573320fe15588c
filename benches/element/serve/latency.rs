// SPDX-License-Identifier: MPL-2.0
//! Age of tags when their source pushes them: the publisher writes the moment into the tag itself.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use gst::prelude::*;

use crate::{measure, media};

const FLV_TAG_HEADER: usize = 11;

#[derive(Clone, Default)]
pub struct Ages(Arc<Mutex<Lists>>);

#[derive(Default)]
struct Lists {
    first: Vec<u64>,
    steady: Vec<u64>,
}

impl Ages {
    pub fn probe(&self, source: &gst::Element) -> Result<()> {
        let pad = source.static_pad("src").context("no src pad")?;
        let ages = self.clone();
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(mask, move |_, info| {
            let now = measure::monotonic();
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => ages.add(now, buffer),
                Some(gst::PadProbeData::BufferList(list)) => {
                    list.iter().for_each(|buffer| ages.add(now, buffer));
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        Ok(())
    }

    /// Prints both lists, in nanoseconds, and clears them.
    pub fn print(&self) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Lists { first, steady } = std::mem::take(&mut *lists);
        println!("ages {first:?} {steady:?}");
    }

    fn add(&self, now: u64, buffer: &gst::BufferRef) {
        let mut start = [0; FLV_TAG_HEADER + 32];
        // Sequence headers are shorter, and the slice must not be longer than the buffer.
        if buffer.size() < start.len() || buffer.copy_to_slice(0, &mut start).is_err() {
            return;
        }
        let Some((first, written)) = media::read_stamp(&start[FLV_TAG_HEADER..]) else {
            return;
        };
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = if first {
            &mut lists.first
        } else {
            &mut lists.steady
        };
        list.push(now.saturating_sub(written));
    }
}
