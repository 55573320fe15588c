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
#[command(name = "rtmp2-multicam", version, after_long_help = help())]
pub struct Options {
    /// JSON file with the cameras; --help shows all of it
    pub file: PathBuf,
    /// Address to serve the page, /metrics and /stat on, port 0 for any free one; not served without
    /// this
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// Address to serve /metrics to Prometheus on, with the metrics of the servers alone
    /// (multicam_...), which --http serves too; port 0 for any free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Also print the status of all streams at this interval in seconds, 0 for never. A terminal
    /// always shows it, and this has no effect there
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub interval: u64,
    /// Check the configuration, and exit
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    pub dashboard: dashboard::Options,
}

fn help() -> String {
    HELP.replace("EXAMPLE", include_str!("../multicam.json"))
}

const HELP: &str = r#"The configuration

EXAMPLE
"variables", "source", "url_template", "fallback_urls" and "retry" may be set for all cameras, for one ("cameras"), or
for one stream ("streams", with "urls" in place of "url_template"); the innermost value is used. Unknown keys are errors.

  listen          Address for publishers, for sources of the kind rtmp: "host" ("::", all of IPv6 and IPv4) and "port"
                  (1935; 0 for any free one, which is printed).
  variables       Texts that replace "{name}" in URLs, paths and stream keys. "{camera_id}" and "{stream_name}" are
                  always set.
  source          One of
                  {"rtmp": {"application": A, "stream_key": K}}: the publisher of rtmp://THIS-HOST:PORT/A/K. It may
                    connect, disconnect and return. Servers have the stream from its first media until the publisher
                    has been gone for 10 s. In the example, for "main" of "1":
                    ffmpeg -re -i FILE -c copy -f flv rtmp://THIS-HOST:1935/cameras/1-main
                  {"file": {"path": P, "loop": false}}: a file, unchanged, at its own pace, starting when a server first
                    accepts the stream. P is relative to the folder of the configuration. FLV of all codecs; of other
                    files (MP4, Matroska, MPEG-TS) the first tracks in H.264, AAC and MP3
                  {"test": {...}}: a moving picture with a tone. "pattern": smpte, ball, snow or black; the other
                    values above are the defaults.
  url_template    URL of the server, rtmp:// or rtmps://, with user and password where the server wants them.
                  "urls", at a stream, is a list of URLs, the best first.
  fallback_urls   URLs to use while the ones before fail, the best first. [] for none.
  retry           initial_delay_ms, max_delay_ms: delay after no server has accepted the stream, doubled from one to the
                  other; also before a failed pipeline starts again.
                  max_attempts: rounds through all servers before the pipeline starts again, 0 for never.
                  return_to_primary_ms: while a fallback is used, interval of attempts at the first one, 0 for never.
                  timeout_ms: time for a server to accept the stream, and longest time in which it may accept no data.
  cameras         "id" and "streams" with "name": letters, digits, '-', '_' and '.'.

While it runs

  Each change of a stream's state prints a line; a terminal always shows a table of all streams. Lines, errors and
  metrics show no more of stream keys and passwords than their first two characters.
  With --http, a page shows how all streams do, with the last ten minutes of each. /metrics has the metrics that all
  programs of this project have (rtmp2_...) and multicam_..., /stat the publishers in the form of nginx-rtmp, and
  /api/streams what the page shows, as JSON.
  Metrics are served to 16 connections at a time, each of which must be done within 10 s.

  SIGHUP          Reads the configuration again. Unchanged streams go on untouched; others start, stop, or start again.
                  A configuration with problems changes nothing, and its problems are printed.
  SIGINT, SIGTERM End all streams in an orderly way. Another signal ends the program at once, if it comes a second later
                  or more: earlier ones count as the same signal.

Exit codes: 0 after a signal, 1 for a failure, 2 for a wrong command line or configuration."#;
