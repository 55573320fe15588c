// SPDX-License-Identifier: MPL-2.0

//! The command line and its help.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Send the streams of many cameras to RTMP servers, each with fallbacks
///
/// Each stream of the configuration is a pipeline of its own, from its source into an
/// rtmp2fallbacksink: one whose camera or server fails disturbs none of the others.
#[derive(Parser)]
#[command(name = "rtmp2-multicam", after_long_help = help())]
pub struct Options {
    /// JSON file with the cameras; --help shows all of it
    pub file: PathBuf,
    /// Address to serve /metrics to Prometheus on, port 0 for any free one; not served without this
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Also print the status of all streams at this interval in seconds, 0 for never. A terminal
    /// always shows it, and this has no effect there
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub interval: u64,
    /// Check the configuration, and exit
    #[arg(long)]
    pub check: bool,
}

fn help() -> String {
    HELP.replace("EXAMPLE", include_str!("../multicam.json"))
}

const HELP: &str = r#"The configuration

EXAMPLE
"variables", "source", "url_template", "fallback_urls" and "retry" may be said for all cameras, for one ("cameras"), or
for one stream ("streams", with "urls" in place of "url_template"); what is said further inside holds. Unknown keys are
errors.

  listen          Where publishers connect to, for sources of the kind rtmp: "host" (0.0.0.0) and "port" (1935; 0 for any
                  free one, which is printed).
  variables       Texts that "{name}" stands for in URLs, paths and stream keys. "{camera_id}" and "{stream_name}" are
                  there always.
  source          One of
                  {"rtmp": {"application": A, "stream_key": K}}: the publisher of rtmp://THIS-HOST:PORT/A/K. It may
                    come, go and come back. Servers have the stream from its first media until it is gone for 10 s. In
                    the example, for "main" of "1":
                    ffmpeg -re -i FILE -c copy -f flv rtmp://THIS-HOST:1935/cameras/1-main
                  {"file": {"path": P, "loop": false}}: a file as it is, at its own pace, from when a server takes the
                    stream for the first time. P is from the folder of the configuration. FLV of all codecs; of other
                    files (MP4, Matroska, MPEG-TS) the first tracks in H.264, AAC and MP3
                  {"test": {...}}: a picture that moves, with a tone. "pattern": smpte, ball, snow or black; the other
                    values above are the defaults.
  url_template    Where to send to, rtmp:// or rtmps://, with user and password where the server wants them.
                  "urls", at a stream, is a list of them, the best first.
  fallback_urls   Where to send to while those before take nothing, the best first. [] for none.
  retry           initial_delay_ms, max_delay_ms: what to wait when no server has taken the stream, doubled from one to
                  the other; also before a pipeline that has failed starts again.
                  max_attempts: rounds through all servers before the pipeline starts again, 0 for never.
                  return_to_primary_ms: while a fallback is used, how often to try the first one, 0 for never.
                  timeout_ms: how long a server may take to accept the stream, and how long it may take nothing of it.
  cameras         "id" and "streams" with "name": letters, digits, '-', '_' and '.'.

While it runs

  A line is printed when the state of a stream changes; on a terminal all of them are shown all the time. Stream keys
  and passwords are in no line, no error and no metric, but for their first two characters.
  Metrics are served to 16 connections at a time, each for as long as it is answered within 10 s.

  SIGHUP          Reads the configuration again. Streams that it does not change go on untouched; others are started,
                  stopped, or started anew. One that can't be used changes nothing, and is told.
  SIGINT, SIGTERM End all streams in the orderly way. Another one ends at once, if it comes a second after that or later:
                  those before are taken for the same one.

Exit codes: 0 after a signal, 1 for what failed, 2 for a wrong command line or configuration."#;
