// SPDX-License-Identifier: MPL-2.0

//! The time of day of a publisher's media.

use super::source_clocks::SourceTime;
use super::time::NANOS_PER_MILLI;
use crate::flv::Tag;

/// Distance in milliseconds that script data may have from the media around it, behind and ahead.
/// Beyond that its timestamp means nothing, and it belongs to the media before it.
const MAX_SCRIPT_LAG: i64 = 10_000;
const MAX_SCRIPT_LEAD: i64 = 1000;

/// Follows the time of day from one statement of the publisher to the next.
///
/// A statement holds for its own tag and for all that leave after it, by their distance in the
/// publisher's timestamps. It ends with the publisher, and where its timestamps jump: a distance
/// across a jump says nothing.
#[derive(Debug, Default)]
pub(super) struct TimeOfDay {
    statement: Option<Statement>,
    /// Clock and time of the last media that has left.
    last: Option<(u32, i64)>,
}

#[derive(Debug, Clone, Copy)]
struct Statement {
    /// The run of the publisher's clock that it belongs to.
    clock: u32,
    /// Presentation time in nanoseconds on that clock.
    time: i64,
    /// Nanoseconds since the Unix epoch.
    unix: u64,
}

impl TimeOfDay {
    /// Notes the first media of a publisher, before descriptions that it has sent ahead of it.
    pub(super) fn start_media(&mut self, first: Option<SourceTime>) {
        self.last = first.map(|first| (0, first.common));
    }

    /// Returns the time of day of media in nanoseconds since the Unix epoch. `clock` is the run of the
    /// publisher's clock that it belongs to.
    pub(super) fn of_media(&mut self, tag: &Tag, source: SourceTime, clock: u32) -> Option<u64> {
        self.last = Some((clock, source.common));
        self.of(tag, source.common, clock)
    }

    /// Returns the time of day of a description.
    pub(super) fn of_description(&mut self, tag: &Tag, source: SourceTime) -> Option<u64> {
        let (clock, last) = self.last?;
        let distance = source.common.saturating_sub(last);
        let is_near = (-MAX_SCRIPT_LAG..=MAX_SCRIPT_LEAD).contains(&distance);
        self.of(tag, if is_near { source.common } else { last }, clock)
    }

    #[inline]
    fn of(&mut self, tag: &Tag, millis: i64, clock: u32) -> Option<u64> {
        if self.statement.is_none() && tag.time_of_day.is_none() {
            return None;
        }
        let time = millis.saturating_mul(NANOS_PER_MILLI.cast_signed());
        let time = time.saturating_add(tag.info.composition_time);
        if let Some(unix) = tag.time_of_day {
            self.statement = Some(Statement {
                clock,
                time,
                unix: unix.get(),
            });
        }
        let statement = self
            .statement
            .filter(|statement| statement.clock == clock)?;
        let distance = time.saturating_sub(statement.time);
        statement.unix.checked_add_signed(distance)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::flv::TagKind;
    use crate::memory::Memory;

    const NOON: u64 = 1_700_000_000_000_000_000;

    fn tag(kind: TagKind, stated: u64) -> Tag {
        let body = match kind {
            TagKind::Audio => &[0xAF, 1, 9][..],
            // 10 ms of composition time.
            TagKind::Video => &[0x17, 1, 0, 0, 10, 9],
            TagKind::Script => &[2, 0, 1, b'a'],
        };
        let mut tag = Tag::new(kind, 0, Memory::from_vec(body.to_vec(), 0)).unwrap();
        tag.time_of_day = NonZeroU64::new(stated);
        tag
    }

    fn at(millis: i64) -> SourceTime {
        SourceTime {
            own: millis,
            common: millis,
        }
    }

    fn millis_after_noon(time: Option<u64>) -> Option<i64> {
        time.map(|time| (time.cast_signed() - NOON.cast_signed()) / 1_000_000)
    }

    #[test]
    fn statement_holds_for_its_tag_and_those_after_it_by_presentation_time() {
        let mut times = TimeOfDay::default();
        let mut media = |kind, stated, millis, clock| {
            millis_after_noon(times.of_media(&tag(kind, stated), at(millis), clock))
        };
        assert_eq!(media(TagKind::Video, 0, 960, 0), None);
        assert_eq!(media(TagKind::Video, NOON, 1000, 0), Some(0));
        assert_eq!(media(TagKind::Video, 0, 1040, 0), Some(40));
        assert_eq!(media(TagKind::Audio, 0, 1000, 0), Some(-10));
        // The next statement corrects the publisher's drift.
        assert_eq!(
            media(TagKind::Video, NOON + 2_003_000_000, 3000, 0),
            Some(2003)
        );
        assert_eq!(media(TagKind::Audio, 0, 3010, 0), Some(2003));
        // Media after a jump of the timestamps belongs to another clock.
        assert_eq!(media(TagKind::Audio, 0, 3010, 1), None);
        assert_eq!(media(TagKind::Video, 0, 3040, 0), Some(2043));
        assert_eq!(media(TagKind::Video, NOON, 50, 1), Some(0));
        assert_eq!(media(TagKind::Video, 0, 3080, 0), None);
    }

    #[test]
    fn script_data_with_a_foreign_timestamp_belongs_to_the_media_before_it() {
        let mut times = TimeOfDay::default();
        times.start_media(Some(at(100_000)));
        let script = tag(TagKind::Script, NOON);
        assert_eq!(
            millis_after_noon(times.of_description(&script, at(0))),
            Some(0)
        );
        let audio = tag(TagKind::Audio, 0);
        assert_eq!(
            millis_after_noon(times.of_media(&audio, at(100_020), 0)),
            Some(20)
        );
        assert_eq!(
            millis_after_noon(times.of_description(&script, at(100_040))),
            Some(0)
        );
        assert_eq!(
            millis_after_noon(times.of_media(&audio, at(100_050), 0)),
            Some(10)
        );
    }

    #[test]
    fn times_beyond_all_bounds_are_none() {
        let mut times = TimeOfDay::default();
        assert_eq!(
            times.of_media(&tag(TagKind::Audio, 5), at(i64::MAX), 0),
            Some(5)
        );
        assert_eq!(
            times.of_media(&tag(TagKind::Audio, 0), at(i64::MIN), 0),
            None
        );
    }
}
