// SPDX-License-Identifier: MPL-2.0

//! The metrics that are fields of the statistics.

use common::statistics::Unit;

/// A metric, its help, its unit in the statistics, and its fields: one without a label, or one for
/// each value of a label.
pub(super) struct Description {
    pub name: &'static str,
    pub help: &'static str,
    pub unit: Unit,
    pub label: &'static str,
    pub fields: &'static [(&'static str, &'static str)],
}

const fn one(
    name: &'static str,
    help: &'static str,
    unit: Unit,
    field: &'static [(&'static str, &'static str); 1],
) -> Description {
    Description {
        name,
        help,
        unit,
        label: "",
        fields: field,
    }
}

/// Counters cover the element since its start, so that they never go back; gauges about a publisher
/// cover the present one, or the last one.
pub(super) const OF_ELEMENT: &[Description] = &[
    one(
        "rtmp2_connection_state",
        "Connection state of the publisher: 0 disconnected, 1 connected, 2 authenticating, 3 negotiating, 4 reconfiguring, 5 streaming, 6 recovering.",
        Unit::None,
        &[("", "connection-state")],
    ),
    one(
        "rtmp2_stream_status",
        "Status of the stream: 1 active, 2 reconfiguring, 3 paused, 4 stopped.",
        Unit::None,
        &[("", "stream-status")],
    ),
    one(
        "rtmp2_epoch",
        "Number that grows whenever a decoder must start afresh.",
        Unit::None,
        &[("", "epoch")],
    ),
    one(
        "rtmp2_publishing",
        "1 if there is a publisher.",
        Unit::None,
        &[("", "publishing")],
    ),
    one(
        "rtmp2_received_bytes_total",
        "Bytes read from publishers.",
        Unit::None,
        &[("", "total-in-bytes")],
    ),
    one(
        "rtmp2_received_bytes_per_second",
        "Bytes read in the last full second.",
        Unit::BitsPerSecond,
        &[("", "bitrate")],
    ),
    one(
        "rtmp2_received_average_bytes_per_second",
        "Bytes read per second of the present publisher.",
        Unit::BitsPerSecond,
        &[("", "bitrate-average")],
    ),
    one(
        "rtmp2_received_peak_bytes_per_second",
        "Bytes read in the peak second of the publisher.",
        Unit::BitsPerSecond,
        &[("", "bitrate-peak")],
    ),
    Description {
        name: "rtmp2_tags_total",
        help: "Tags from publishers.",
        unit: Unit::None,
        label: "kind",
        fields: &[
            ("audio", "total-audio-tags"),
            ("video", "total-video-tags"),
            ("script", "total-script-tags"),
        ],
    },
    Description {
        name: "rtmp2_tag_bytes_total",
        help: "Bytes in the bodies of tags from publishers.",
        unit: Unit::None,
        label: "kind",
        fields: &[
            ("audio", "total-audio-bytes"),
            ("video", "total-video-bytes"),
            ("script", "total-script-bytes"),
        ],
    },
    one(
        "rtmp2_keyframes_total",
        "Video keyframes from publishers.",
        Unit::None,
        &[("", "total-keyframes")],
    ),
    one(
        "rtmp2_skipped_messages_total",
        "Messages that no decoder could use.",
        Unit::None,
        &[("", "total-skipped")],
    ),
    one(
        "rtmp2_frames_per_second",
        "Video frames in a second of the publisher's own time.",
        Unit::None,
        &[("", "frame-rate")],
    ),
    one(
        "rtmp2_gop_frames",
        "Frames in the last complete group of pictures.",
        Unit::None,
        &[("", "gop-length")],
    ),
    one(
        "rtmp2_gop_duration_seconds",
        "Duration of the last complete group of pictures.",
        Unit::Nanoseconds,
        &[("", "gop-duration")],
    ),
    one(
        "rtmp2_last_byte_age_seconds",
        "Time since the publisher's last byte.",
        Unit::Nanoseconds,
        &[("", "time-since-last-byte")],
    ),
    one(
        "rtmp2_last_keyframe_age_seconds",
        "Time since the publisher's last keyframe.",
        Unit::Nanoseconds,
        &[("", "time-since-last-keyframe")],
    ),
    one(
        "rtmp2_queue_bytes",
        "Bytes of memory waiting for the pipeline.",
        Unit::None,
        &[("", "current-level-bytes")],
    ),
    one(
        "rtmp2_queue_duration_seconds",
        "Media time waiting for the pipeline.",
        Unit::Nanoseconds,
        &[("", "current-level-time")],
    ),
    one(
        "rtmp2_publishers_total",
        "Accepted publishers.",
        Unit::None,
        &[("", "publishers")],
    ),
    one(
        "rtmp2_reconnects_total",
        "Publishers that returned within resume-timeout.",
        Unit::None,
        &[("", "reconnects")],
    ),
    one(
        "rtmp2_replacements_total",
        "Publishers that replaced one that was still connected.",
        Unit::None,
        &[("", "replacements")],
    ),
    one(
        "rtmp2_publisher_uptime_seconds",
        "Time since the present publisher connected.",
        Unit::Nanoseconds,
        &[("", "uptime")],
    ),
    one(
        "rtmp2_uptime_seconds_total",
        "Time with a publisher.",
        Unit::Nanoseconds,
        &[("", "total-uptime")],
    ),
    one(
        "rtmp2_downtime_seconds_total",
        "Time without a publisher since the first one left.",
        Unit::Nanoseconds,
        &[("", "downtime")],
    ),
    one(
        "rtmp2_outage_seconds",
        "Time since the last publisher left.",
        Unit::Nanoseconds,
        &[("", "outage")],
    ),
    one(
        "rtmp2_timestamps_clamped_total",
        "Tags with earlier timestamps, sent at the time of the one before.",
        Unit::None,
        &[("", "timestamps-clamped")],
    ),
    one(
        "rtmp2_timestamp_jumps_total",
        "Restarts and jumps of publishers' clocks.",
        Unit::None,
        &[("", "timestamp-jumps")],
    ),
    one(
        "rtmp2_timestamps_frozen_total",
        "Tags sent at the time of their arrival, since the publisher's timestamps stood still.",
        Unit::None,
        &[("", "timestamps-frozen")],
    ),
    one(
        "rtmp2_clock_drift_ppm",
        "Parts per million by which the publisher's clock is faster than the pipeline's.",
        Unit::None,
        &[("", "clock-drift")],
    ),
    one(
        "rtmp2_clock_corrected_seconds",
        "Time added to timestamps to correct the drift of publishers' clocks.",
        Unit::Nanoseconds,
        &[("", "clock-corrected")],
    ),
    one(
        "rtmp2_keyframe_requests_total",
        "Requests for a keyframe from downstream.",
        Unit::None,
        &[("", "force-key-unit-events")],
    ),
];

/// These are about an element, which may have many streams.
pub(super) const OF_ACCESS: &[Description] = &[
    one(
        "rtmp2_rejected_clients_total",
        "Rejected clients. A client that may have meant several elements counts for each.",
        Unit::None,
        &[("", "rejected")],
    ),
    one(
        "rtmp2_last_error_age_seconds",
        "Time since a client was last rejected or cut off.",
        Unit::Nanoseconds,
        &[("", "time-since-last-error")],
    ),
];

pub(super) const OF_PROCESS: &[Description] = &[
    one(
        "rtmp2_process_elements",
        "Listening elements.",
        Unit::None,
        &[("", "elements")],
    ),
    one(
        "rtmp2_process_listeners",
        "Listening addresses.",
        Unit::None,
        &[("", "listeners")],
    ),
    one(
        "rtmp2_process_clients",
        "Present connections.",
        Unit::None,
        &[("", "clients")],
    ),
    one(
        "rtmp2_process_publishing",
        "Present publishers.",
        Unit::None,
        &[("", "publishing")],
    ),
    one(
        "rtmp2_process_publishers_total",
        "Accepted publishers.",
        Unit::None,
        &[("", "publishers")],
    ),
    one(
        "rtmp2_process_received_bytes_total",
        "Bytes read from publishers.",
        Unit::None,
        &[("", "in-bytes")],
    ),
    one(
        "rtmp2_process_tags_total",
        "Tags from publishers.",
        Unit::None,
        &[("", "tags")],
    ),
    one(
        "rtmp2_process_rejected_clients_total",
        "Rejected clients, summed over the elements.",
        Unit::None,
        &[("", "rejected")],
    ),
    one(
        "rtmp2_process_dropped_tags_total",
        "Tags that were dropped.",
        Unit::None,
        &[("", "dropped")],
    ),
];
