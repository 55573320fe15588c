// SPDX-License-Identifier: MPL-2.0

use crate::flv::{Content, Tag};

/// Memory for what waits: a publisher may never send media, and describe it for ever.
const MAX_BYTES: usize = 1024 * 1024;

/// What a publisher says of its stream before it sends any of it. A later description of the same
/// kind takes the place of an earlier one.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tags: Vec<Tag>,
    bytes: usize,
}

impl Waiting {
    /// Says whether there was room.
    pub(super) fn push(&mut self, tag: Tag) -> bool {
        let key = |tag: &Tag| (tag.kind, tag.info.content, tag.info.track);
        let is_configuration = !matches!(tag.info.content, Content::Script | Content::Command);
        let known = self.tags.iter().position(|t| key(t) == key(&tag));
        if let Some(index) = known.filter(|_| is_configuration) {
            self.bytes -= self.tags.remove(index).memory();
        }
        if self.bytes + tag.memory() > MAX_BYTES {
            return false;
        }
        self.bytes += tag.memory();
        self.tags.push(tag);
        true
    }

    pub(super) fn into_tags(self) -> Vec<Tag> {
        self.tags
    }
}
