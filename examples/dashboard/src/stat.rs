// SPDX-License-Identifier: MPL-2.0

//! `/stat` in the form of nginx-rtmp, for programs that read that one, such as NOALBS. Streams
//! without a publisher are not in it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::board::{Board, Snapshot};
use crate::facts::Facts;
use crate::state::StreamState;

/// Returns the document.
pub fn document(board: &Board) -> String {
    let streams = board.snapshots(f64::MAX).into_iter();
    let streams = streams.map(|(snapshot, _)| snapshot);
    let is_present = |snapshot: &Snapshot| {
        let state = snapshot.sample.state;
        snapshot.facts.address.is_some() && state != StreamState::Failed
    };
    let streams: Vec<Snapshot> = streams.filter(is_present).collect();
    let mut applications: BTreeMap<&str, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in &streams {
        let application = applications.entry(&snapshot.application);
        application.or_default().push(snapshot);
    }
    let bitrate: u64 = streams.iter().map(|stream| stream.sample.bitrate).sum();
    let bytes: u64 = streams.iter().map(|stream| stream.facts.bytes).sum();

    let mut xml = Xml(String::from(
        "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n",
    ));
    xml.open("rtmp");
    xml.value("pid", std::process::id());
    xml.value("uptime", board.uptime().as_secs());
    xml.value("naccepted", streams.len());
    xml.value("bw_in", bitrate);
    xml.value("bytes_in", bytes);
    xml.value("bw_out", 0);
    xml.value("bytes_out", 0);
    xml.open("server");
    for (name, streams) in applications {
        xml.open("application");
        xml.value("name", name);
        xml.open("live");
        streams.iter().for_each(|stream| xml.stream(stream));
        xml.value("nclients", streams.len());
        xml.close("live");
        xml.close("application");
    }
    xml.close("server");
    xml.close("rtmp");
    xml.0
}

struct Xml(String);

impl Xml {
    fn open(&mut self, name: &str) {
        // A string accepts everything.
        let _ = writeln!(self.0, "<{name}>");
    }

    fn close(&mut self, name: &str) {
        let _ = writeln!(self.0, "</{name}>");
    }

    fn value(&mut self, name: &str, value: impl ToString) {
        let value = escaped(&value.to_string());
        let _ = writeln!(self.0, "<{name}>{value}</{name}>");
    }

    fn optional(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    fn flag(&mut self, name: &str) {
        let _ = writeln!(self.0, "<{name}/>");
    }

    fn stream(&mut self, stream: &Snapshot) {
        let facts = &stream.facts;
        let millis = (facts.uptime_seconds.unwrap_or_default() * 1000.0) as u64;
        let is_active = stream.sample.state == StreamState::Active;
        self.open("stream");
        self.value("name", &stream.stream);
        self.value("time", millis);
        self.value("bw_in", stream.sample.bitrate);
        self.value("bytes_in", facts.bytes);
        self.value("bw_out", 0);
        self.value("bytes_out", 0);
        self.value("bw_audio", stream.audio_bitrate);
        self.value("bw_video", stream.video_bitrate);
        self.open("client");
        self.value("id", 1);
        self.optional("address", facts.address.as_deref());
        self.value("time", millis);
        self.optional("flashver", facts.encoder.as_deref());
        self.value("dropped", facts.dropped_tags);
        self.value("avsync", 0);
        self.value("timestamp", millis);
        self.flag("publishing");
        if is_active {
            self.flag("active");
        }
        self.close("client");
        self.meta(facts, stream.sample.frame_rate);
        self.value("nclients", 1);
        self.flag("publishing");
        if is_active {
            self.flag("active");
        }
        self.close("stream");
    }

    fn meta(&mut self, facts: &Facts, measured: Option<f64>) {
        let is_video = facts.video_codec.is_some() || facts.video_bytes > 0;
        let is_audio = facts.audio_codec.is_some() || facts.audio_bytes > 0;
        if !is_video && !is_audio {
            return;
        }
        self.open("meta");
        if is_video {
            self.open("video");
            self.optional("width", facts.width);
            self.optional("height", facts.height);
            let rate = facts.configured_frame_rate.or(measured);
            self.optional(
                "frame_rate",
                rate.map(|rate| (rate * 1000.0).round() / 1000.0),
            );
            self.optional("codec", facts.video_codec.as_deref().map(codec));
            self.optional("profile", facts.profile.as_deref());
            self.close("video");
        }
        if is_audio {
            self.open("audio");
            self.optional("codec", facts.audio_codec.as_deref().map(codec));
            self.optional("channels", facts.audio_channels);
            self.optional("sample_rate", facts.audio_rate);
            self.close("audio");
        }
        self.close("meta");
    }
}

/// Returns the name that nginx-rtmp uses.
fn codec(name: &str) -> &str {
    match name {
        "H.264" | "avc1" => "H264",
        "H.265" | "hvc1" => "HEVC",
        "av01" => "AV1",
        "vp09" => "VP9",
        "vp08" => "VP8",
        "mp4a" => "AAC",
        ".mp3" => "MP3",
        "Sorenson H.263" | "flv1" => "Sorenson-H263",
        name => name,
    }
}

/// Escapes what XML would read as markup, and leaves out what it cannot have.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::board::tests::{board, stats};

    #[test]
    fn publishers_appear_as_in_nginx() {
        let (board, program) = board(None);
        let publisher = |video_bytes: u64| {
            stats(1, 2_000_000, 29.97)
                .field("address", "192.0.2.9:50000")
                .field("video-codec", "H.264")
                .field("width", 1280_u32)
                .field("height", 720_u32)
                .field("audio-codec", "AAC")
                .field("audio-rate", 48_000_u32)
                .field("audio-channels", 2_u32)
                .field("encoder", "OBS <30> & more")
                .field("in-bytes-total", 300_000_u64)
                .field("video-bytes", video_bytes)
                .field("uptime", 12_345_000_000_u64)
                .build()
        };
        let idle = stats(4, 0, 0.0).build();
        for (second, video_bytes) in [(10.0, 0), (11.0, 225_000)] {
            *program.streams.lock().unwrap() = vec![
                ("cam".to_owned(), publisher(video_bytes)),
                ("idle".to_owned(), idle.clone()),
            ];
            board.sample(second, Instant::now());
        }
        let text = document(&board);
        let flat: String = text.lines().collect();
        let expected = "<application><name>live</name><live><stream><name>cam</name><time>12345</time>\
             <bw_in>2000000</bw_in><bytes_in>300000</bytes_in><bw_out>0</bw_out><bytes_out>0</bytes_out>\
             <bw_audio>0</bw_audio><bw_video>1800000</bw_video>\
             <client><id>1</id><address>192.0.2.9:50000</address><time>12345</time>\
             <flashver>OBS &lt;30&gt; &amp; more</flashver><dropped>0</dropped><avsync>0</avsync>\
             <timestamp>12345</timestamp><publishing/><active/></client>\
             <meta><video><width>1280</width><height>720</height><frame_rate>29.97</frame_rate><codec>H264</codec></video>\
             <audio><codec>AAC</codec><channels>2</channels><sample_rate>48000</sample_rate></audio></meta>\
             <nclients>1</nclients><publishing/><active/></stream><nclients>1</nclients></live></application>";
        assert!(flat.contains(expected), "{text}");
        assert!(!flat.contains("idle"), "{text}");
        assert!(flat.ends_with("</server></rtmp>"));
    }
}
