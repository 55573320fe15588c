// SPDX-License-Identifier: MPL-2.0

//! Decides which file each packet belongs to, and where one file ends and the next one begins.
//! Pure: it opens nothing and reads no clock.
//!
//! ```text
//!            packet                settled: Open
//!   Idle ------------> Opening ------------------> Recording
//!    ^                    ^                         |  |
//!    |                    |   cut: Close            |  |
//!    |                    +-------------------------+  |
//!    |  finish: Close                                  |
//!    +-------------------------------------------------+
//!    a file failed: any state -> Failed, until media has gone on for a while and a keyframe comes
//! ```
//!
//! Packets keep their order, and each is written once. Packets of a track that the present file
//! does not have wait for the next file.

/// Nanoseconds.
type Time = u64;

const MILLISECOND: Time = 1_000_000;
const SECOND: Time = 1000 * MILLISECOND;

/// Media before a file is opened, in which its tracks show up.
const SETTLING: Time = SECOND;

/// Least media before a file opens: tracks that have not been announced yet may be among it.
const MIN_SETTLING: Time = 200 * MILLISECOND;

/// Media of other tracks after which a track without media ends in the present file. A muxer would
/// wait for it, and write nothing.
const SILENCE: Time = 3 * SECOND;

/// Longest such time of a track that pauses regularly.
const MAX_SILENCE: Time = 30 * SECOND;

/// Longest step of the media clock. A longer one is an outage, in which no track is silent.
const MAX_STEP: Time = 500 * MILLISECOND;

/// A step back by more than this is another timeline.
const MAX_BACKWARD: Time = 10 * SECOND;

/// Least age of a file that a track ends, which pauses and comes back.
const MIN_AGE: Time = 10 * SECOND;

/// Bounds of the packets that wait for the next file.
const MAX_WAIT: Time = 10 * SECOND;
const MAX_WAITING_BYTES: u64 = 16 * 1024 * 1024;

/// Media after the failure of a file, before the next one is tried.
const RETRY: Time = 2 * SECOND;

/// A packet of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet<T> {
    /// Index of the track.
    pub(super) track: usize,
    pub(super) dts: Time,
    pub(super) pts: Time,
    pub(super) is_key: bool,
    pub(super) bytes: u64,
    pub(super) media: T,
}

/// Reason for the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// Tracks or their configurations have changed.
    Configuration,
    /// Another publisher follows, or this one has left for good.
    Publisher,
    MaxSizeTime,
    MaxSizeBytes,
    /// The free space is below its minimum.
    MinFreeBytes,
    EndOfStream,
    /// The element stops.
    Stopped,
    /// Media before this was lost.
    Discontinuity,
    /// The file can't be written.
    Error,
}

impl CloseReason {
    pub(super) fn nick(self) -> &'static str {
        match self {
            CloseReason::Configuration => "configuration",
            CloseReason::Publisher => "publisher",
            CloseReason::MaxSizeTime => "max-size-time",
            CloseReason::MaxSizeBytes => "max-size-bytes",
            CloseReason::MinFreeBytes => "min-free-bytes",
            CloseReason::EndOfStream => "eos",
            CloseReason::Stopped => "stopped",
            CloseReason::Discontinuity => "discontinuity",
            CloseReason::Error => "error",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<T> {
    /// Opens a file with these tracks. Times in it count from `start`.
    Open {
        tracks: Vec<usize>,
        start: Time,
    },
    Write(Packet<T>),
    /// A track of the file has no more packets in it.
    EndTrack(usize),
    Close(CloseReason),
    /// A packet that belongs to no file, since the last one failed.
    Drop(Packet<T>),
}

/// Limits of a file. 0 is none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FileLimits {
    pub(super) max_time: Time,
    pub(super) max_bytes: u64,
}

#[derive(Debug)]
struct TrackState {
    is_video: bool,
    /// The video track with the lowest id decides where files begin.
    id: u32,
    /// Counts configurations.
    generation: u32,
    /// The configuration that the present file has.
    in_file: Option<u32>,
    /// The configuration that ended in the present file by silence.
    ended: Option<u32>,
    /// Time of the last packet, or of the configuration, on the media clock.
    heard_at: Time,
    silence: Time,
}

impl TrackState {
    fn is_in_file(&self) -> bool {
        self.in_file == Some(self.generation)
    }

    /// The track has no more media in the present file.
    fn end_in_file(&mut self) {
        self.in_file = None;
        self.ended = Some(self.generation);
        // A track that pauses regularly, as pictures every five seconds, must not make a file of
        // each of them.
        self.silence = (self.silence * 3).min(MAX_SILENCE);
    }
}

#[derive(Debug)]
enum State<T> {
    Idle,
    Opening { held: Vec<Packet<T>>, since: Time },
    Recording(Present<T>),
    Failed { until: Time },
}

/// The present file.
#[derive(Debug)]
struct Present<T> {
    first_dts: Time,
    bytes: u64,
    opened_at: Time,
    /// Packets for the next file.
    late: Vec<Packet<T>>,
    late_bytes: u64,
    late_since: Time,
    /// Some track in `late` was never in this file, so that the next one begins at once.
    has_new_track: bool,
}

#[derive(Debug)]
pub(super) struct Rotation<T> {
    limits: FileLimits,
    tracks: Vec<TrackState>,
    state: State<T>,
    /// Time of the media, without outages.
    clock: Time,
    /// Highest DTS.
    leader: Option<Time>,
    /// Reason to begin another file with the next keyframe.
    wanted: Option<CloseReason>,
}

impl<T> Rotation<T> {
    pub(super) fn new() -> Self {
        Rotation {
            limits: FileLimits::default(),
            tracks: Vec::new(),
            state: State::Idle,
            clock: 0,
            leader: None,
            wanted: None,
        }
    }

    pub(super) fn set_limits(&mut self, limits: FileLimits) {
        self.limits = limits;
    }

    /// Adds a track, or gives it another configuration. Tracks are numbered from 0. Packets that wait
    /// get their file before, since they need the former configuration.
    pub(super) fn configure_track(
        &mut self,
        index: usize,
        is_video: bool,
        id: u32,
        actions: &mut Vec<Action<T>>,
    ) {
        self.open_for_waiting(index, actions);
        while self.tracks.len() <= index {
            self.tracks.push(TrackState {
                is_video,
                id,
                generation: 0,
                in_file: None,
                ended: None,
                heard_at: self.clock,
                silence: SILENCE,
            });
        }
        let clock = self.clock;
        let track = &mut self.tracks[index];
        track.is_video = is_video;
        track.id = id;
        track.generation += 1;
        track.heard_at = clock;
    }

    pub(super) fn handle_packet(&mut self, packet: Packet<T>, actions: &mut Vec<Action<T>>) {
        self.advance(&packet);
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => self.begin(Vec::new(), packet, actions),
            State::Opening { mut held, since } => {
                held.push(packet);
                self.state = State::Opening { held, since };
                self.open_if_settled(actions);
            }
            State::Recording(present) => self.handle_in_file(present, packet, actions),
            State::Failed { until } => {
                let leads = self
                    .lead(|_| true)
                    .is_none_or(|lead| lead == packet.track && packet.is_key);
                if self.clock >= until && leads {
                    self.begin(Vec::new(), packet, actions);
                } else {
                    self.state = State::Failed { until };
                    actions.push(Action::Drop(packet));
                }
            }
        }
    }

    /// Ends the present file at the next keyframe, since the stream goes on until then. Returns
    /// whether there is a file.
    pub(super) fn end_at_keyframe(&mut self, reason: CloseReason) -> bool {
        let has_file = matches!(self.state, State::Opening { .. } | State::Recording(_));
        if has_file {
            self.wanted = Some(reason);
        }
        has_file
    }

    /// Takes [`Self::end_at_keyframe`] back.
    pub(super) fn keep_file(&mut self) {
        self.wanted = None;
    }

    /// Ends the present file. Packets that wait for the next one get one of their own.
    pub(super) fn finish(&mut self, reason: CloseReason, actions: &mut Vec<Action<T>>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Opening { held, .. } => {
                self.open(held, actions);
                self.close(reason, actions);
            }
            State::Recording(present) => {
                self.close(reason, actions);
                if !present.late.is_empty() {
                    self.open(present.late, actions);
                    self.close(reason, actions);
                }
            }
            State::Idle | State::Failed { .. } => {}
        }
    }

    /// The present file has failed, or could not be opened. Packets that wait for the next one are
    /// dropped.
    pub(super) fn fail(&mut self, actions: &mut Vec<Action<T>>) {
        let until = self.clock + RETRY;
        let before = std::mem::replace(&mut self.state, State::Failed { until });
        self.leave_file();
        let dropped = match before {
            State::Opening { held, .. } => held,
            State::Recording(present) => present.late,
            State::Idle | State::Failed { .. } => Vec::new(),
        };
        actions.extend(dropped.into_iter().map(Action::Drop));
    }

    /// The next file may begin at the next keyframe, since what made the last one fail is over.
    pub(super) fn retry_soon(&mut self) {
        if let State::Failed { until } = &mut self.state {
            *until = self.clock;
        }
    }

    /// Moves the media clock.
    fn advance(&mut self, packet: &Packet<T>) {
        let leader = self.leader.unwrap_or(packet.dts);
        if packet.dts >= leader || leader - packet.dts > MAX_BACKWARD {
            self.clock += packet.dts.saturating_sub(leader).min(MAX_STEP);
            self.leader = Some(packet.dts);
        }
        self.tracks[packet.track].heard_at = self.clock;
    }

    /// Returns the video track that decides where files begin, of those that satisfy a condition.
    fn lead(&self, is_candidate: impl Fn(&TrackState) -> bool) -> Option<usize> {
        let tracks = self.tracks.iter().enumerate();
        tracks
            .filter(|(_, track)| {
                let is_silent = self.clock.saturating_sub(track.heard_at) > track.silence;
                track.is_video && !is_silent && is_candidate(track)
            })
            .min_by_key(|(_, track)| track.id)
            .map(|(index, _)| index)
    }

    fn begin(&mut self, mut held: Vec<Packet<T>>, packet: Packet<T>, actions: &mut Vec<Action<T>>) {
        held.push(packet);
        let since = self.clock;
        self.state = State::Opening { held, since };
        self.open_if_settled(actions);
    }

    /// Opens a file for packets that wait for one, if some of them are of this track.
    fn open_for_waiting(&mut self, track: usize, actions: &mut Vec<Action<T>>) {
        let has_track = |packets: &[Packet<T>]| packets.iter().any(|p| p.track == track);
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Opening { held, .. } if has_track(&held) => self.open(held, actions),
            State::Recording(present) if has_track(&present.late) => {
                self.close(CloseReason::Configuration, actions);
                self.open(present.late, actions);
            }
            other => self.state = other,
        }
    }

    /// Opens the file once each track that is expected has a packet, or media has gone on for a
    /// while.
    fn open_if_settled(&mut self, actions: &mut Vec<Action<T>>) {
        let State::Opening { held, since, .. } = &self.state else {
            return;
        };
        let age = self.clock - since;
        if age < MIN_SETTLING {
            return;
        }
        let mut present = vec![false; self.tracks.len()];
        held.iter().for_each(|packet| present[packet.track] = true);
        let has_packet = |index: usize| present[index];
        let mut tracks = self.tracks.iter().enumerate();
        let is_complete = tracks.all(|(index, track)| {
            let is_expected = self.clock - track.heard_at <= SETTLING && track.generation > 0;
            !is_expected || has_packet(index)
        });
        let has_kind = |is_video| {
            let mut tracks = self.tracks.iter().zip(&present);
            tracks.any(|(track, is_present)| *is_present && track.is_video == is_video)
        };
        let has_both = has_kind(true) && has_kind(false);
        let is_settled = age >= SETTLING || (is_complete && has_both);
        if !is_settled {
            return;
        }
        if let State::Opening { held, .. } = std::mem::replace(&mut self.state, State::Idle) {
            self.open(held, actions);
        }
    }

    /// Opens a file for these packets.
    fn open(&mut self, held: Vec<Packet<T>>, actions: &mut Vec<Action<T>>) {
        let mut tracks = Vec::new();
        for packet in &held {
            let track = &mut self.tracks[packet.track];
            if !track.is_in_file() {
                track.in_file = Some(track.generation);
                tracks.push(packet.track);
            }
        }
        tracks.sort_by_key(|index| {
            let track = &self.tracks[*index];
            (!track.is_video, track.id)
        });
        let start = held.iter().map(|packet| packet.dts.min(packet.pts)).min();
        self.state = State::Recording(Present {
            first_dts: held.iter().map(|packet| packet.dts).min().unwrap_or(0),
            bytes: held.iter().map(|packet| packet.bytes).sum(),
            opened_at: self.clock,
            late: Vec::new(),
            late_bytes: 0,
            late_since: 0,
            has_new_track: false,
        });
        actions.push(Action::Open {
            tracks,
            start: start.unwrap_or(0),
        });
        actions.extend(held.into_iter().map(Action::Write));
    }

    fn close(&mut self, reason: CloseReason, actions: &mut Vec<Action<T>>) {
        self.state = State::Idle;
        self.leave_file();
        actions.push(Action::Close(reason));
    }

    fn leave_file(&mut self) {
        self.wanted = None;
        for track in &mut self.tracks {
            track.in_file = None;
            track.ended = None;
        }
    }

    /// Handles a packet while there is a file.
    fn handle_in_file(
        &mut self,
        mut present: Present<T>,
        packet: Packet<T>,
        actions: &mut Vec<Action<T>>,
    ) {
        let lead = self.lead(TrackState::is_in_file);
        let is_in_file = self.tracks[packet.track].is_in_file();
        let may_begin = match lead {
            Some(lead) => lead == packet.track && packet.is_key,
            None => is_in_file,
        };
        let reason = self
            .wish(&present, &packet)
            .filter(|_| may_begin)
            .or_else(|| {
                let begins = !is_in_file && self.must_begin_with(&packet, lead);
                let reason = self.wanted.unwrap_or(CloseReason::Configuration);
                (begins || self.is_overdue(&present)).then_some(reason)
            });
        if let Some(reason) = reason {
            self.close(reason, actions);
            return self.begin(present.late, packet, actions);
        }
        if !is_in_file {
            if present.late.is_empty() {
                present.late_since = self.clock;
            }
            let track = &mut self.tracks[packet.track];
            present.has_new_track |= track.ended != Some(track.generation);
            present.late_bytes += packet.bytes;
            present.late.push(packet);
            self.state = State::Recording(present);
            return;
        }
        present.bytes += packet.bytes;
        actions.push(Action::Write(packet));
        self.state = State::Recording(present);
        self.end_silent_tracks(actions);
    }

    /// Returns whether a packet of a track that is not in the file begins the next one by itself:
    /// video that has changed, or that nothing of the present file could be a start for.
    fn must_begin_with(&self, packet: &Packet<T>, lead: Option<usize>) -> bool {
        let track = &self.tracks[packet.track];
        let has_changed = track.is_video && track.in_file.is_some();
        lead.is_none_or(|lead| has_changed && track.id < self.tracks[lead].id)
    }

    /// Returns whether packets have waited for the next file for too long.
    fn is_overdue(&self, present: &Present<T>) -> bool {
        !present.late.is_empty()
            && (self.clock - present.late_since >= MAX_WAIT
                || present.late_bytes >= MAX_WAITING_BYTES)
    }

    /// Returns the reason to begin another file with the next keyframe.
    fn wish(&self, present: &Present<T>, packet: &Packet<T>) -> Option<CloseReason> {
        let wants_tracks = !present.late.is_empty()
            && (present.has_new_track || self.clock - present.opened_at >= MIN_AGE);
        let tracks = wants_tracks.then_some(CloseReason::Configuration);
        let limit = || self.limit_reached(present, packet);
        self.wanted.or_else(limit).or(tracks)
    }

    fn limit_reached(&self, present: &Present<T>, packet: &Packet<T>) -> Option<CloseReason> {
        let limits = self.limits;
        let age = packet.dts.saturating_sub(present.first_dts);
        if limits.max_time > 0 && age >= limits.max_time {
            return Some(CloseReason::MaxSizeTime);
        }
        (limits.max_bytes > 0 && present.bytes >= limits.max_bytes)
            .then_some(CloseReason::MaxSizeBytes)
    }

    /// Ends tracks of the file that have no media while others go on.
    fn end_silent_tracks(&mut self, actions: &mut Vec<Action<T>>) {
        let clock = self.clock;
        for (index, track) in self.tracks.iter_mut().enumerate() {
            if track.is_in_file() && clock - track.heard_at > track.silence {
                track.end_in_file();
                actions.push(Action::EndTrack(index));
            }
        }
    }

    /// A track has ended in the present file, which could not wait for it any longer.
    pub(super) fn end_track(&mut self, index: usize) {
        let track = self.tracks.get_mut(index);
        if let Some(track) = track.filter(|track| track.is_in_file()) {
            track.end_in_file();
        }
    }
}

#[cfg(test)]
mod tests;
