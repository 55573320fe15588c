// SPDX-License-Identifier: MPL-2.0

use crate::flv::TagKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JumpKind {
    Back,
    Ahead,
    /// The timestamps stand still.
    Frozen,
}

/// A break in the timestamps of a track, in milliseconds of the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    pub kind: JumpKind,
    pub track: TagKind,
    pub from: i64,
    pub to: i64,
}
