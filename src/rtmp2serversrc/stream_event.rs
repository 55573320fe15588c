// SPDX-License-Identifier: MPL-2.0

use gst::glib;

/// An event in the life of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2StreamEvent")]
#[repr(u32)]
pub enum StreamEvent {
    /// A publisher was accepted.
    #[enum_value(name = "A publisher was accepted", nick = "publisher-connected")]
    PublisherConnected,
    /// A client was rejected.
    #[enum_value(name = "A client was rejected", nick = "publisher-rejected")]
    PublisherRejected,
    /// Decoders have to start afresh.
    #[enum_value(
        name = "Decoders have to start afresh",
        nick = "reconfiguration-started"
    )]
    ReconfigurationStarted,
    /// The first frame after a reconfiguration has left.
    #[enum_value(
        name = "The first frame after a reconfiguration has left",
        nick = "reconfiguration-done"
    )]
    ReconfigurationDone,
    /// No media arrives any more.
    #[enum_value(name = "No media arrives any more", nick = "stalled")]
    Stalled,
    /// Media arrives again.
    #[enum_value(name = "Media arrives again", nick = "resumed")]
    Resumed,
    /// Another publisher has replaced this one.
    #[enum_value(name = "Another publisher has replaced this one", nick = "replaced")]
    Replaced,
    /// Media was dropped.
    #[enum_value(name = "Media was dropped", nick = "dropped")]
    Dropped,
    /// The publisher was asked to reconnect.
    #[enum_value(
        name = "The publisher was asked to reconnect",
        nick = "reconnect-requested"
    )]
    ReconnectRequested,
    /// The publisher has left for good.
    #[enum_value(name = "The publisher has left for good", nick = "publisher-gone")]
    PublisherGone,
    /// Only one of audio and video arrives, or both arrive again.
    #[enum_value(
        name = "Only one of audio and video arrives, or both arrive again",
        nick = "imbalance"
    )]
    Imbalance,
    /// The publisher's timestamps have jumped or stand still.
    #[enum_value(
        name = "The publisher's timestamps have jumped or stand still",
        nick = "timestamp-jump"
    )]
    TimestampJump,
    /// A track is dropped, since its codec is not accepted.
    #[enum_value(
        name = "A track is dropped, since its codec is not accepted",
        nick = "codec-refused"
    )]
    CodecRefused,
    /// A keyframe was requested downstream.
    #[enum_value(
        name = "A keyframe was requested downstream",
        nick = "keyframe-requested"
    )]
    KeyframeRequested,
    /// Media leaves without a keyframe, since none has arrived in time.
    #[enum_value(
        name = "Media leaves without a keyframe, since none has arrived in time",
        nick = "no-keyframe"
    )]
    NoKeyframe,
    /// Standby plays.
    #[enum_value(name = "Standby plays", nick = "standby-started")]
    StandbyStarted,
    /// The publisher plays again.
    #[enum_value(name = "The publisher plays again", nick = "standby-ended")]
    StandbyEnded,
    /// A figure of the publisher's media is beyond its limit.
    #[enum_value(
        name = "A figure of the publisher's media is beyond its limit",
        nick = "quality-low"
    )]
    QualityLow,
    /// A figure of the publisher's media is within its limit again.
    #[enum_value(
        name = "A figure of the publisher's media is within its limit again",
        nick = "quality-restored"
    )]
    QualityRestored,
}
