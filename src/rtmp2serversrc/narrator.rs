// SPDX-License-Identifier: MPL-2.0

//! The story of a stream for people: who publishes what, stalls, returns and ends, with durations.
//!
//! Each method returns the text of a message, if there is something to tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::voice::{Voice, duration};
use crate::flv::description::StreamDescription;
use crate::server::{Publisher, Verdict};

#[derive(Debug, Default)]
pub(super) struct Narrator {
    publisher: Option<Arc<Publisher>>,
    /// Its description that was told last.
    told: Option<StreamDescription>,
    stalled_since: Option<Instant>,
    lost_since: Option<Instant>,
    /// Time without a publisher before this one returned.
    downtime: Option<Duration>,
}

impl Narrator {
    pub(super) fn start(&mut self, publisher: &Arc<Publisher>, now: Instant) {
        self.downtime = self.lost_since.take().map(|since| now - since.min(now));
        self.publisher = Some(publisher.clone());
        self.told = None;
        self.stalled_since = None;
    }

    /// Handles the first frame of an epoch.
    pub(super) fn activate(
        &mut self,
        voice: &Voice,
        description: &StreamDescription,
    ) -> Option<String> {
        let publisher = self.publisher.as_ref()?;
        let name = voice.name(publisher);
        let what = match description.is_empty() {
            true => "media of an unknown codec".to_owned(),
            false => with_encoder(description, publisher).to_string(),
        };
        let text = match (&self.told, self.downtime.take()) {
            (Some(told), _) if told == description => return None,
            (Some(_), _) => format!("{name} has changed to {what}"),
            (None, Some(away)) => format!("{name} is back after {}: {what}", duration(away)),
            (None, None) => format!("{name}: {what}"),
        };
        self.told = Some(description.clone());
        Some(text)
    }

    pub(super) fn stall(
        &mut self,
        voice: &Voice,
        silent: Duration,
        now: Instant,
    ) -> Option<String> {
        let name = voice.name(self.publisher.as_ref()?);
        self.stalled_since = Some(now.checked_sub(silent).unwrap_or(now));
        Some(format!(
            "{name} has stalled: no media for {}",
            duration(silent)
        ))
    }

    pub(super) fn resume(&mut self, voice: &Voice, now: Instant) -> Option<String> {
        let name = voice.name(self.publisher.as_ref()?);
        let since = self.stalled_since.take()?;
        let stalled = now.saturating_duration_since(since);
        Some(format!(
            "{name} sends media again after {}",
            duration(stalled)
        ))
    }

    /// Tells of a figure that is beyond its limit, or within it again.
    pub(super) fn judge(&self, voice: &Voice, verdict: &Verdict) -> Option<String> {
        let name = voice.name(self.publisher.as_ref()?);
        let (quality, limit) = (verdict.quality, verdict.limit_name());
        let figure = |number| {
            let figure = quality.figure(number);
            let text = format!("{figure:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let (value, bound) = (figure(verdict.number), figure(verdict.limit));
        let (what, unit) = (quality.name(), quality.unit());
        Some(match (verdict.is_low, verdict.is_min) {
            (true, true) => format!("{name}: {what} is {value} {unit}, below {limit} ({bound})"),
            (true, false) => format!("{name}: {what} is {value} {unit}, above {limit} ({bound})"),
            (false, _) if verdict.is_beyond() => {
                format!("{name}: {what} is {value} {unit}, and {limit} ({bound}) was removed")
            }
            (false, _) => {
                format!("{name}: {what} is {value} {unit}, within {limit} ({bound}) again")
            }
        })
    }

    pub(super) fn lose(
        &mut self,
        voice: &Voice,
        may_return: Duration,
        now: Instant,
    ) -> Option<String> {
        let publisher = self.publisher.as_ref()?;
        self.lost_since = Some(now);
        self.stalled_since = None;
        let stayed = now.saturating_duration_since(publisher.since);
        Some(format!(
            "{} has lost its connection after {}, and may return within {}",
            voice.name(publisher),
            duration(stayed),
            duration(may_return)
        ))
    }

    /// Handles the end of a publisher. `reason` is that of the event `publisher-gone`.
    pub(super) fn end(
        &mut self,
        voice: &Voice,
        publisher: &Arc<Publisher>,
        reason: &str,
        now: Instant,
    ) -> Option<String> {
        let name = voice.name(publisher);
        let is_present = |present: &Arc<Publisher>| present.client == publisher.client;
        let was_told = self.told.is_some() || !self.publisher.as_ref().is_some_and(is_present);
        let is_lost = self.publisher.as_ref().is_some_and(is_present);
        if let Some(since) = self.lost_since.filter(|_| is_lost) {
            let away = duration(now.saturating_duration_since(since));
            match reason {
                "not-resumed" => {
                    self.lost_since = None;
                    return Some(format!("{name} did not return within {away}"));
                }
                "disconnected" => self.lost_since = None,
                // The end of the connection before the one that is back.
                _ => return None,
            }
        }
        let stayed = duration(now.saturating_duration_since(publisher.since));
        let reason = match reason {
            "unpublished" => "",
            "closed" => ": its connection was closed without an end of the stream",
            "timeout" => ": it has sent nothing for as long as timeout allows",
            "violation" => ": it broke the protocol",
            "replaced" => ": another publisher has taken over",
            "disconnected" => ": it was disconnected by disconnect-publisher or EOS",
            "max-duration" => ": the time that the server of auth-url has given it is over",
            "drained" => ": the element is drained",
            "stopped" => ": the element stops",
            _ => "",
        };
        Some(match was_told {
            true => format!("{name} has ended after {stayed}{reason}"),
            false => format!(
                "{name} has ended after {stayed}{reason}, without media that could be decoded. It has to be \
                 FLV (ffmpeg: -f flv)"
            ),
        })
    }

    /// Returns the present publisher, or the last one.
    pub(super) fn publisher(&self) -> Option<&Publisher> {
        self.publisher.as_deref()
    }

    pub(super) fn name(&self, voice: &Voice) -> Option<String> {
        self.publisher
            .as_ref()
            .map(|publisher| voice.name(publisher))
    }
}

/// Returns a description with the encoder of the connection where the stream does not name one.
fn with_encoder(description: &StreamDescription, publisher: &Publisher) -> StreamDescription {
    let mut description = description.clone();
    description.name_encoder(&publisher.flash_ver);
    description
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtmp2serversrc::settings::Settings;
    use crate::server::RemovalReason;

    fn aac() -> StreamDescription {
        let mut description = StreamDescription::default();
        description.add_tag(&[
            8, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0xAF, 0, 0x11, 0x90, 0, 0, 0, 15,
        ]);
        description
    }

    #[test]
    fn the_story_of_a_publisher_is_told_once_with_durations() {
        let voice = Voice::new(&Settings::default());
        let mut narrator = Narrator::default();
        let publisher = Arc::new(Publisher::example(1));
        let start = publisher.since;
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut told = Vec::new();
        narrator.start(&publisher, start);
        told.extend(narrator.activate(&voice, &aac()));
        told.extend(narrator.activate(&voice, &aac()));
        told.extend(narrator.stall(&voice, Duration::from_secs(2), at(12)));
        told.extend(narrator.resume(&voice, at(15)));
        told.extend(narrator.resume(&voice, at(16)));
        told.extend(narrator.lose(&voice, Duration::from_secs(5), at(30)));
        narrator.start(&publisher, at(33));
        told.extend(narrator.activate(&voice, &aac()));
        told.extend(narrator.end(&voice, &publisher, "unpublished", at(40)));
        let name = "live/key from 127.0.0.1";
        let expected = [
            format!("{name}: AAC 48 kHz stereo"),
            format!("{name} has stalled: no media for 2.0 s"),
            format!("{name} sends media again after 5.0 s"),
            format!("{name} has lost its connection after 30 s, and may return within 5.0 s"),
            format!("{name} is back after 3.0 s: AAC 48 kHz stereo"),
            format!("{name} has ended after 40 s"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn every_end_but_a_normal_one_has_its_reason() {
        let voice = Voice::new(&Settings::default());
        let publisher = Arc::new(Publisher::example(1));
        let mut texts = RemovalReason::ALL.map(|reason| {
            let mut narrator = Narrator::default();
            narrator.start(&publisher, publisher.since);
            narrator.activate(&voice, &aac());
            narrator.end(&voice, &publisher, reason.nick(), publisher.since)
        });
        texts.sort();
        let plain = Some("live/key from 127.0.0.1 has ended after 0.0 s".to_owned());
        assert_eq!(texts[0], plain);
        assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "{texts:?}");
    }

    #[test]
    fn an_end_without_media_says_so() {
        let voice = Voice::new(&Settings::default());
        let mut narrator = Narrator::default();
        let publisher = Arc::new(Publisher::example(1));
        narrator.start(&publisher, publisher.since);
        let end = narrator.end(&voice, &publisher, "unpublished", publisher.since);
        assert!(end.unwrap().contains("without media"));
        let lost = narrator.lose(&voice, Duration::from_secs(5), publisher.since);
        assert!(lost.is_some());
        let later = publisher.since + Duration::from_secs(5);
        let end = narrator
            .end(&voice, &publisher, "not-resumed", later)
            .unwrap();
        assert_eq!(end, "live/key from 127.0.0.1 did not return within 5.0 s");
    }
}
