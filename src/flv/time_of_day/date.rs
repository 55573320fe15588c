// SPDX-License-Identifier: MPL-2.0

//! Dates and times as texts: RFC 3339, and the date and the time of `onFI`.

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MINUTE: i64 = 60 * NANOS_PER_SECOND as i64;

/// Years that a live publisher may state. Earlier ones come from clocks that count from their start,
/// or from machines that have not set their clock.
const YEARS: std::ops::RangeInclusive<u64> = 2000..=2199;

/// Longest text of a date or a time, in bytes: with nine decimals and a zone it has 35.
const MAX_TEXT: usize = 64;

/// Distance between two time zones, in nanoseconds.
const ZONE_STEP: i64 = 15 * NANOS_PER_MINUTE;

/// Largest distance of a local time from UTC, in nanoseconds. The zones reach from -12 to +14 hours,
/// and around midnight the date of some encoders is a day off.
const MAX_ZONE: i64 = (14 + 24) * 60 * NANOS_PER_MINUTE;

/// Largest distance of a local time from its arrival in nanoseconds, beyond the zone: the error of the
/// publisher's clock and the latency.
const MAX_SKEW: i64 = NANOS_PER_MINUTE;

/// A time as the publisher has stated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatedTime {
    /// Nanoseconds since the Unix epoch, if the time is in UTC.
    nanos: u64,
    /// The zone is known, and the time is in UTC.
    is_utc: bool,
}

/// The zone of a publisher that states local times.
///
/// `onFI` has no zone: some encoders send UTC, and some their local time. Clocks are set from the
/// network and latencies are short, so a local time is about a number of quarter hours away from its
/// arrival. A time that is not counts as UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalZone {
    /// Nanoseconds from UTC to the publisher's time.
    offset: i64,
}

impl LocalZone {
    /// Returns a stated time in nanoseconds since the Unix epoch. `arrival` is when it has arrived.
    pub fn utc(&mut self, stated: StatedTime, arrival: u64) -> u64 {
        if stated.is_utc {
            return stated.nanos;
        }
        let distance = stated
            .nanos
            .cast_signed()
            .saturating_sub(arrival.cast_signed());
        if distance.saturating_abs() <= MAX_ZONE + MAX_SKEW {
            let steps = (distance + ZONE_STEP / 2).div_euclid(ZONE_STEP);
            let offset = steps * ZONE_STEP;
            if (distance - offset).abs() <= MAX_SKEW {
                self.offset = offset;
            }
        }
        stated.nanos.saturating_add_signed(-self.offset)
    }
}

impl StatedTime {
    /// Converts milliseconds since the Unix epoch.
    pub(super) fn from_millis(millis: u64) -> Option<Self> {
        let days = millis / (24 * 3600 * 1000);
        let range = days_since_epoch(*YEARS.start(), 1, 1)..days_since_epoch(YEARS.end() + 1, 1, 1);
        // Lazily: the product fits within these years alone.
        range.contains(&days).then(|| StatedTime {
            nanos: millis * 1_000_000,
            is_utc: true,
        })
    }

    /// Parses a whole text as a time of RFC 3339, as `2024-05-31T12:26:03.591Z`. The zone may be
    /// missing.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = Text::new(text)?;
        let is_year_first = rest.rest.get(4) == Some(&b'-');
        let date = is_year_first.then(|| rest.date())??;
        rest.one_of(b"Tt ")?;
        rest.time_on(date)
    }

    /// Parses the system date and the system time of `onFI`, as `31-05-2024` and `12:26:03.591`.
    pub(super) fn of_date_and_time(date: &str, time: &str) -> Option<Self> {
        let mut rest = Text::new(date)?;
        let date = rest.date()?;
        let time = rest.is_empty().then(|| Text::new(time))?;
        time?.time_on(date)
    }

    /// Returns the nanoseconds since the Unix epoch, if a time without a zone is in UTC.
    pub fn nanos(self) -> u64 {
        self.nanos
    }
}

/// Days since the Unix epoch of a date after it. The year of the formula starts in March, so that the
/// leap day is its last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    const DAYS_TO_EPOCH: u64 = 719_468;
    let (year, month) = match month {
        ..=2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days_of_years = year * 365 + year / 4 - year / 100 + year / 400;
    days_of_years + (153 * month + 2) / 5 + day - 1 - DAYS_TO_EPOCH
}

fn is_leap_year(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap_year(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The unparsed end of a text.
struct Text<'a> {
    rest: &'a [u8],
}

impl<'a> Text<'a> {
    fn new(text: &'a str) -> Option<Self> {
        let rest = text.trim().as_bytes();
        (rest.len() <= MAX_TEXT).then_some(Text { rest })
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        bytes.contains(&first).then(|| self.rest = rest)?;
        Some(first)
    }

    /// Parses a number of at least `least` and at most `most` digits, and returns it with the number of
    /// them.
    fn number(&mut self, least: usize, most: usize) -> Option<(u64, usize)> {
        let digits = self.rest.iter().take(most);
        let count = digits.take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        let number = digits
            .iter()
            .fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
        (count >= least).then_some((number, count))
    }

    /// Parses a date with the day or the year first, and returns its days since the Unix epoch.
    fn date(&mut self) -> Option<u64> {
        let (first, digits) = self.number(1, 4)?;
        let separator = self.one_of(b"-/.")?;
        let (month, _) = self.number(1, 2)?;
        self.one_of(&[separator])?;
        let (year, day) = if digits == 4 {
            (first, self.number(1, 2)?.0)
        } else {
            let (year, digits) = self.number(2, 4)?;
            let century = if digits == 2 { 2000 } else { 0 };
            (century + year, first)
        };
        let is_valid = YEARS.contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day);
        is_valid.then(|| days_since_epoch(year, month, day))
    }

    /// Parses the rest as a time on a day, with any number of decimals and perhaps a zone.
    fn time_on(&mut self, day: u64) -> Option<StatedTime> {
        let (hour, _) = self.number(1, 2)?;
        self.one_of(b":")?;
        let (minute, _) = self.number(1, 2)?;
        self.one_of(b":")?;
        let (second, _) = self.number(1, 2)?;
        // A leap second is the 61st.
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let nanos = match self.one_of(b".,") {
            Some(_) => self.fraction()?,
            None => 0,
        };
        let seconds = day * 24 * 3600 + hour * 3600 + minute * 60 + second;
        let local = seconds * NANOS_PER_SECOND + nanos;
        let offset = self.zone()?;
        self.is_empty().then(|| StatedTime {
            nanos: local.saturating_add_signed(-offset.unwrap_or(0)),
            is_utc: offset.is_some(),
        })
    }

    /// Parses decimals of a second as nanoseconds. Those beyond the ninth count for nothing.
    fn fraction(&mut self) -> Option<u64> {
        let (number, count) = self.number(1, 9)?;
        while self.number(1, 1).is_some() {}
        Some(number * 10_u64.pow(9 - count as u32))
    }

    /// Parses a zone as nanoseconds to add to UTC. Returns `Some(None)` where the text has ended.
    fn zone(&mut self) -> Option<Option<i64>> {
        if self.is_empty() {
            return Some(None);
        }
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(Some(0)),
        };
        let (hours, _) = self.number(2, 2)?;
        self.one_of(b":");
        let (minutes, _) = self.number(2, 2)?;
        let is_valid = hours < 24 && minutes < 60;
        is_valid.then(|| Some(sign * (hours * 60 + minutes).cast_signed() * NANOS_PER_MINUTE))
    }
}
