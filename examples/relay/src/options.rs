// SPDX-License-Identifier: MPL-2.0

//! The command line: all options, checked before anything is started.

// Documentation of fields is the text of --help, which has no markup.
#![allow(rustdoc::bare_urls, rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use url::Url;

use crate::access::AccessOptions;

/// The environment variable that may hold the secret of the notifications instead of a file.
const SECRET_VARIABLE: &str = "RELAY_NOTIFY_SECRET";
/// An attacker with one signed message can try all shorter ones.
const MIN_SECRET: usize = 16;
/// The file that `npm ci` leaves in the source tree.
const HLS_JS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/page/node_modules/hls.js/dist/hls.min.js"
);

const LONG_ABOUT: &str = "\
Accepts RTMP publishers, cleans their streams, and serves them as HLS.

Publishers connect to rtmp://HOST:1935/APPLICATION/USER/STREAM or rtmp://HOST:1935/APPLICATION/STREAM. \
Their streams become HLS with segments of 2 s: 30 frames per second, one closed group of pictures per segment, H.264 baseline, \
AAC 48 kHz stereo. A publisher that returns within 30 s continues the same playlist, after a discontinuity mark. Otherwise the playlist \
ends, and its files are removed 30 s later.

The name of a stream is public: it is in the address of its playlist, in the list of streams, in metrics and notifications. Anyone who knows \
it can publish while nobody else does, so restrict access to the RTMP port, or who may publish: with --publish-user, --auth-url or --signing-key-file.";

const AFTER_HELP: &str = "\
Paths of the HTTP server:
  /                                      a page that plays the streams, and shows operators how they do
  /hls/APPLICATION[/USER]/STREAM/index.m3u8
                                         the playlist of a stream, with its segments beside it, for pages of any site
  /streams                               the present streams, as JSON
  /health                                200 {\"status\":\"ok\"}; 503 with the problems if there are any
  /metrics                               for Prometheus
  /stat                                  publishers in the form of nginx-rtmp, as NOALBS reads it
  /api/streams                           what the page shows to operators, as JSON
  /api/streams/NAME/history              ten minutes of bitrate, frame rate and state of one stream

Everyone who reaches the HTTP port can read all of it. The server has no TLS: put a reverse proxy in front of it, and pass its address as --public-url. \
The number of concurrent connections is a quarter of the program's limit of open files (ulimit -n), and 2000 at most.

The page plays with hls.js from npm: npm ci --prefix examples/relay/page
Without it the page plays only in browsers that play HLS themselves, such as Safari.

Notifications (--notify): when the playlist of a stream has its first segments, and when a stream that was ready has ended, the relay sends by POST:
  {\"id\":\"...\",\"event\":\"ready\",\"time\":\"2026-11-21T16:42:22Z\",\"application\":\"live\",\"user\":\"ann\",\"stream\":\"cam\",
   \"playlist\":\"http://HOST/hls/live/ann/cam/index.m3u8\"}
`event` is ready or gone, and `user` is null where there is none. The headers:
  X-Relay-Id         the id: the same for each attempt, so that a repetition can be recognized
  X-Relay-Timestamp  the time of this attempt, in seconds since 1970: reject one that is older than some minutes
  X-Relay-Signature  sha256=HEX, the HMAC-SHA256 of the timestamp, a dot and the body, with the secret
Answer 2xx. After 5xx, 408, 425, 429, a timeout or a failed connection it is sent again for an hour: first after 0.5 to 1 s, then after up to twice as long each time, \
60 s at most, or after the time of Retry-After. Any other answer, redirects too, ends it, with a line in the log. The notifications of one stream keep their order. A ready \
that was not acknowledged before its stream ended is not sent again, so a gone may come without one.

The secret is in the file of --notify-secret-file or in the environment variable RELAY_NOTIFY_SECRET, 16 bytes or more. It is never on the command \
line, where other users see it: openssl rand -hex 32 > secret

Access: the question to --auth-url, its answers and the form of signed URLs are in docs/elements.md of this project. The \
options go together: what is set has to be passed.

Several relays (--relay, --this): each user belongs to one of them, which all relays compute from the same list. A publisher at another relay is \
asked to reconnect to the right one if it supports that (Enhanced RTMP); otherwise it is served where it is.

SIGTERM or SIGINT ends the relay within 9 s: media in the encoders is written, and notifications have 3 s to arrive. Streams that return within 30 s of the next \
start continue their playlists. A second signal ends the relay at once; the same signal again within a second counts as one. Exit codes: 0 after a signal, \
1 for a failure and after a second signal, 2 for a wrong command line.

Example: a relay that notifies https://app.example of its streams, and a publisher
  openssl rand -hex 32 > secret
  rtmp2-relay --http 127.0.0.1:8080 --directory /var/lib/relay \\
      --public-url https://video.example --notify https://app.example/hook --notify-secret-file secret
  ffmpeg -re -i input.mp4 -c copy -f flv rtmp://127.0.0.1:1935/live/ann/cam
  curl http://127.0.0.1:8080/hls/live/ann/cam/index.m3u8";

/// Accept RTMP publishers, clean their streams, serve them as HLS
#[derive(Debug, Parser)]
#[command(name = "rtmp2-relay", version, long_about = LONG_ABOUT, after_long_help = AFTER_HELP)]
pub struct Options {
    /// Address to listen on for publishers; port 0 is any free one, and [::] is all addresses of IPv6
    /// and IPv4
    #[arg(long, value_name = "HOST:PORT", default_value = "[::]:1935")]
    pub rtmp: HostPort,
    /// Address to serve the page, HLS, health and metrics on; port 0 is any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    #[command(flatten)]
    pub dashboard: dashboard::Options,
    #[command(flatten)]
    pub access: AccessOptions,
    /// Directory for playlists and segments; created if it is missing. Its content is served. The
    /// file .relay marks the relay's own directories, and only those are removed: a minute after
    /// their stream has ended, or after the start if an earlier process left them. No other relay
    /// may use it meanwhile
    #[arg(long, value_name = "DIRECTORY", default_value = "hls")]
    pub directory: PathBuf,
    /// Pass clean streams through as they are, which needs far less CPU time
    #[arg(long)]
    pub passthrough: bool,
    /// Limit of concurrent streams; publishers beyond it are refused
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,
    /// Address at which viewers reach the HTTP server, as https://video.example; by default that of
    /// --http
    #[arg(long, value_name = "URL", value_parser = parse_public)]
    pub public_url: Option<Url>,
    /// URL to notify when a stream is ready or gone
    #[arg(long, value_name = "URL", value_parser = parse_notify)]
    pub notify: Option<Url>,
    /// File with the secret that signs notifications
    #[arg(long, value_name = "FILE", requires = "notify")]
    pub notify_secret_file: Option<PathBuf>,
    /// All relays that share users, including this one, as rtmp://HOST[:PORT]; several times or
    /// with commas. Their order does not matter
    #[arg(long = "relay", value_name = "URL", value_delimiter = ',', value_parser = parse_relay, requires = "this_relay")]
    pub relays: Vec<String>,
    /// The one of the relays that this is
    #[arg(long = "this", value_name = "URL", value_parser = parse_relay, requires = "relays")]
    pub this_relay: Option<String>,
    /// hls.min.js of the npm package hls.js, for the page
    #[arg(long, value_name = "FILE", default_value = HLS_JS, hide_default_value = true)]
    pub hls_js: PathBuf,
    /// The secret, from the file or the environment.
    #[arg(skip)]
    pub notify_secret: Secret,
}

impl Options {
    /// Reads the options of this process. Exits with a message where they are wrong.
    pub fn read() -> Self {
        let variable = std::env::var_os(SECRET_VARIABLE);
        Options::from(std::env::args_os(), variable).unwrap_or_else(|error| error.exit())
    }

    fn from<T: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = T>,
        secret: Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut options = Options::try_parse_from(arguments)?;
        let wrong = |text: String| Options::command().error(ErrorKind::ValueValidation, text);
        options.check_relays().map_err(wrong)?;
        if options.notify.is_some() {
            options.notify_secret = match &options.notify_secret_file {
                Some(path) => Secret::from_file(path),
                None => Secret::from_variable(secret),
            }
            .map_err(wrong)?;
            if options.public_url.is_none() && options.http.ip().is_unspecified() {
                return Err(wrong(format!(
                    "--notify sends the address of the playlist, and others cannot reach {}: \
                     set --public-url to the address at which they reach the HTTP server",
                    options.http
                )));
            }
        }
        Ok(options)
    }

    fn check_relays(&self) -> Result<(), String> {
        let mut sorted: Vec<&String> = self.relays.iter().collect();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("--relay has {} twice", pair[0]));
        }
        match &self.this_relay {
            Some(this) if !self.relays.contains(this) => Err(format!(
                "--this {this} is not one of the relays: {}. Give each relay the same list, with itself in it",
                self.relays.join(", ")
            )),
            _ => Ok(()),
        }
    }

    /// Returns the address at which viewers reach the HTTP server that listens on `local`. It ends
    /// in a slash.
    pub fn public_base(&self, local: SocketAddr) -> Url {
        let fallback = || Url::parse(&format!("http://{local}/"));
        match &self.public_url {
            Some(url) => url.clone(),
            None => fallback().expect("an address with a port makes a URL"),
        }
    }
}

/// A name or an address, and a port. An IPv6 address is written in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "use HOST:PORT, such as 0.0.0.0:1935, [::]:1935 or localhost:0".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match inner {
            Some(inner) => inner,
            None if host.contains(':') => return Err(form()),
            None => host,
        };
        if host.is_empty() {
            return Err(form());
        }
        Ok(HostPort {
            host: host.to_owned(),
            port: port.parse().map_err(|_| form())?,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A secret, which is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Accepts the content of a file without its line end.
    fn new(mut bytes: Vec<u8>) -> Result<Self, String> {
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.len() < MIN_SECRET {
            return Err(format!(
                "the secret has {} bytes, and fewer than {MIN_SECRET} can be guessed: create one with openssl rand -hex 32",
                bytes.len()
            ));
        }
        Ok(Secret(bytes))
    }

    fn from_file(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let bytes = std::fs::read(path)
            .map_err(|error| format!("--notify-secret-file {shown}: {error}"))?;
        Secret::new(bytes).map_err(|error| format!("--notify-secret-file {shown}: {error}"))
    }

    fn from_variable(value: Option<OsString>) -> Result<Self, String> {
        let value = value.ok_or_else(|| {
            format!(
                "--notify needs a secret for its signatures: in the file of --notify-secret-file, or in {SECRET_VARIABLE}. \
                 Create one with openssl rand -hex 32 > secret"
            )
        })?;
        Secret::new(value.into_encoded_bytes())
            .map_err(|error| format!("{SECRET_VARIABLE}: {error}"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn parse_http(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("use http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "a password in an address is visible to others; notifications are signed instead"
                .to_owned(),
        );
    }
    Ok(url)
}

fn parse_notify(text: &str) -> Result<Url, String> {
    parse_http(text)
}

/// Adds a slash at the end, so that paths can be appended.
fn parse_public(text: &str) -> Result<Url, String> {
    let mut url = parse_http(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must end with its path".to_owned());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Brings a relay's address into one form, so that all relays have the same text for it.
fn parse_relay(text: &str) -> Result<String, String> {
    let form = || "use rtmp://HOST[:PORT] or rtmps://HOST[:PORT] without a path".to_owned();
    let url = Url::parse(text).map_err(|_| form())?;
    let default = match url.scheme() {
        "rtmp" => 1935,
        "rtmps" => 443,
        _ => return Err(form()),
    };
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(form)?.to_ascii_lowercase();
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() {
        return Err(form());
    }
    let port = url.port().unwrap_or(default);
    Ok(format!("{}://{host}:{port}", url.scheme()))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Options {
        pub fn with_secret(secret: &str) -> Self {
            with_secret("--notify http://localhost/", Some(secret)).unwrap()
        }
    }

    fn options(line: &str) -> Result<Options, String> {
        with_secret(line, None)
    }

    fn with_secret(line: &str, secret: Option<&str>) -> Result<Options, String> {
        let words = std::iter::once("relay").chain(line.split_whitespace());
        Options::from(words, secret.map(OsString::from)).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(line: &str, problem: &str) {
        let error = options(line).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }

    #[test]
    fn the_command_line_is_well_defined() {
        Options::command().debug_assert();
        let help = Options::command().render_long_help().to_string();
        for word in [
            "1935",
            "/metrics",
            "X-Relay-Signature",
            "RELAY_NOTIFY_SECRET",
            "npm ci",
            "ffmpeg",
            "SIGTERM",
            ".relay",
        ] {
            assert!(help.contains(word), "{word}");
        }
        assert!(!help.contains(env!("CARGO_MANIFEST_DIR")));
    }

    #[test]
    fn all_options_have_defaults() {
        let options = options("").unwrap();
        assert_eq!(options.rtmp.to_string(), "[::]:1935");
        assert_eq!(options.http.to_string(), "127.0.0.1:8080");
        assert!(!options.passthrough && options.notify.is_none() && options.relays.is_empty());
        let base = options.public_base("127.0.0.1:81".parse().unwrap());
        assert_eq!(base.as_str(), "http://127.0.0.1:81/");
    }

    #[test]
    fn addresses_need_a_port() {
        let parse = |text: &str| text.parse::<HostPort>();
        let is = |text: &str, host: &str| {
            let host_port = parse(text).unwrap();
            assert_eq!(
                (host_port.host.as_str(), host_port.to_string().as_str()),
                (host, text)
            );
        };
        is("[::1]:1935", "::1");
        is("localhost:0", "localhost");
        for text in [
            "1935",
            ":1935",
            "::1:1935",
            "localhost:",
            "localhost:65536",
            "[]:1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        refused("--rtmp 1935", "HOST:PORT");
    }

    #[test]
    fn public_addresses_end_in_a_slash() {
        let base = |line: &str| {
            let options = options(line).unwrap();
            options
                .public_base("0.0.0.0:80".parse().unwrap())
                .to_string()
        };
        assert_eq!(
            base("--public-url https://video.example/tv"),
            "https://video.example/tv/"
        );
        refused("--public-url rtmp://video.example", "http://");
        refused("--public-url https://video.example/?a=b", "path");
    }

    #[test]
    fn notifications_need_a_secret() {
        let line = "--notify https://app.example/hook";
        refused(line, "RELAY_NOTIFY_SECRET");
        let error = with_secret(line, Some("short")).unwrap_err();
        assert!(error.contains("5 bytes"), "{error}");
        let options = with_secret(line, Some("0123456789abcdef\n")).unwrap();
        assert_eq!(options.notify_secret.bytes(), b"0123456789abcdef");
        assert!(!format!("{options:?}").contains("0123"));
        refused(&format!("{line} --notify-secret-file /nowhere"), "/nowhere");
        refused("--notify-secret-file /nowhere", "--notify <URL>");
        refused("--notify https://me:secret@app.example/", "password");
        let error = with_secret(
            &format!("{line} --http 0.0.0.0:80"),
            Some("0123456789abcdef"),
        );
        assert!(error.unwrap_err().contains("--public-url"));
    }

    #[test]
    fn the_secret_file_takes_precedence_over_the_variable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from the file, at length\n").unwrap();
        let path = file.path().display();
        let line = format!("--notify http://localhost/ --notify-secret-file {path}");
        let options = with_secret(&line, Some("from the variable")).unwrap();
        assert_eq!(options.notify_secret.bytes(), b"from the file, at length");
    }

    #[test]
    fn relay_urls_have_one_form() {
        let options = options(
            "--relay rtmp://A.example,rtmps://b.example/ --relay rtmp://[::1]:1 --this rtmp://a.example:1935",
        );
        let expected = [
            "rtmp://a.example:1935",
            "rtmps://b.example:443",
            "rtmp://[::1]:1",
        ];
        assert_eq!(options.unwrap().relays, expected);
        refused("--relay rtmp://a", "--this <URL>");
        refused("--this rtmp://a", "--relay <URL>");
        refused("--relay rtmp://a --this rtmp://b", "not one of the relays");
        refused(
            "--relay rtmp://a,rtmp://a:1935 --this rtmp://a",
            "rtmp://a:1935 twice",
        );
        for relay in [
            "http://a",
            "rtmp://",
            "rtmp://a/live",
            "rtmp://me@a",
            "a:1935",
        ] {
            refused(&format!("--relay {relay} --this {relay}"), "without a path");
        }
    }
}
