// SPDX-License-Identifier: MPL-2.0

//! The demuxer: every codec and every form of Enhanced FLV.

mod broken;
mod cases;
mod changes;
mod codecs;
mod forms;
mod legacy;
mod linking;
mod live;
mod metadata;
mod mutated;
mod samples;
mod vectors;
