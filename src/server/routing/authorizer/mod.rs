// SPDX-License-Identifier: MPL-2.0

//! An HTTP server that decides who may publish, asked on the publisher's own thread.
//!
//! A question takes no longer than its timeout, from the look-up of the name to the end of the
//! answer, and reads no more than [`MAX_HEADERS`] and [`MAX_BODY`]. What is neither a yes nor a no in
//! time is an error, so that nobody publishes by one. Redirects of HTTP are not followed: they would
//! carry passwords to wherever an answer points.

mod answer;
mod question;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use gst::glib;
use rustls::crypto;
use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_ENCODING};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::Url;

use crate::rtmp::authentication::Credentials;
use crate::server::publisher::Publisher;
use answer::BadAnswer;
pub(crate) use answer::{Answer, Grant};
use question::question;

/// Bytes of the status line and the headers of an answer.
const MAX_HEADERS: usize = 16 * 1024;

/// Bytes of the body of an answer.
const MAX_BODY: u64 = 64 * 1024;

/// Connections that stay open for the next questions.
const MAX_IDLE: usize = 16;

/// Time for which an unused connection stays open.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);

/// Asks one authorization server, over connections that it keeps.
pub(crate) struct Authorizer {
    url: String,
    /// Host and port, as logs show them. The rest of the URL may be secret.
    shown: String,
    /// The header with user name and password of the URL.
    authorization: Option<String>,
    timeout: Duration,
    agent: Agent,
    is_shut_down: AtomicBool,
}

/// Reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    #[error("it gave no answer within {0:?}")]
    TimedOut(Duration),
    #[error("its answer is bad: {0}")]
    Bad(String),
    /// The element has stopped meanwhile.
    #[error("the element has stopped")]
    Stopped,
}

/// Error for a URL that can't be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidAuthUrl {
    // The URL itself stays out of errors: it may contain a password.
    #[error("Invalid auth-url: {0}: it should be like http://host:port/path or https://host/path")]
    Url(String),
    #[error(
        "auth-url is https, and this system has no root certificates{0}: install ca-certificates, \
         or set SSL_CERT_FILE to a PEM file"
    )]
    NoRoots(String),
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer")
            .field("server", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Authorizer {
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, InvalidAuthUrl> {
        let invalid = |reason: &str| InvalidAuthUrl::Url(reason.to_owned());
        let mut parsed = Url::parse(url).map_err(|error| invalid(&error.to_string()))?;
        parsed.set_fragment(None);
        let host = parsed
            .host_str()
            .ok_or_else(|| invalid("there is no host"))?;
        let port = parsed.port_or_known_default().unwrap_or_default();
        let shown = format!("{host}:{port}");
        let roots = match parsed.scheme() {
            "http" => Vec::new(),
            "https" => system_roots()?,
            other => return Err(invalid(&format!("the scheme is {other}"))),
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            // Named, since a program may have several and no default.
            .unversioned_rustls_crypto_provider(Arc::new(crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("gst-rtmp2server/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(MAX_HEADERS)
            .input_buffer_size(2 * MAX_HEADERS)
            .output_buffer_size(MAX_HEADERS)
            .max_idle_connections(MAX_IDLE)
            .max_idle_connections_per_host(MAX_IDLE)
            .max_idle_age(MAX_IDLE_TIME)
            .tls_config(tls)
            .build();
        Ok(Authorizer {
            authorization: authorization(&parsed),
            url: parsed.into(),
            shown,
            timeout,
            agent: config.new_agent(),
            is_shut_down: AtomicBool::new(false),
        })
    }

    /// Returns host and port, for logs.
    pub(crate) fn server(&self) -> &str {
        &self.shown
    }

    /// Asks about a publisher, and waits for the answer. `credentials` are those that it has
    /// authenticated with.
    pub(crate) fn ask(
        &self,
        publisher: &Publisher,
        credentials: Option<&Credentials>,
    ) -> Result<Answer, NoAnswer> {
        let question = question(publisher, credentials);
        let start = Instant::now();
        let mut answer = self.post(&question, None);
        // The server may have closed a kept connection just before it was used. Another one is worth
        // one more attempt, in the time that is left.
        if let Err(Failure::Lost(_)) = answer {
            let left = self.timeout.saturating_sub(start.elapsed());
            answer = match left.is_zero() {
                true => Err(Failure::TimedOut),
                false => self.post(&question, Some(left)),
            };
        }
        if self.is_shut_down.load(Ordering::Acquire) {
            return Err(NoAnswer::Stopped);
        }
        answer.map_err(|failure| match failure {
            Failure::Unreachable(reason) => NoAnswer::Unreachable(reason),
            Failure::TimedOut => NoAnswer::TimedOut(self.timeout),
            Failure::Lost(reason) | Failure::Bad(reason) => NoAnswer::Bad(reason),
        })
    }

    /// Ends all questions, and asks no more. A connection that is being opened is not interrupted,
    /// but ends in time.
    pub(crate) fn shut_down(&self) {
        self.is_shut_down.store(true, Ordering::Release);
        self.agent.clone().shutdown();
    }

    fn post(&self, question: &str, timeout: Option<Duration>) -> Result<Answer, Failure> {
        let mut request = self.agent.post(&self.url);
        if timeout.is_some() {
            request = request.config().timeout_global(timeout).build();
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.content_type("application/json").send(question)?;
        if let Some(answer) = Answer::of_status(response.status().as_u16())? {
            return Ok(answer);
        }
        let encoding = response.headers().get(CONTENT_ENCODING);
        let is_encoded = encoding.is_some_and(|encoding| encoding != "identity");
        let body = response.into_body().into_with_config().limit(MAX_BODY);
        // An answer that breaks off is none, and there was one: it is not asked for again.
        let body = body.read_to_vec().map_err(|error| match error.into() {
            Failure::Lost(reason) => Failure::Bad(reason),
            failure => failure,
        })?;
        if is_encoded && !body.is_empty() {
            return Err(BadAnswer::Encoded.into());
        }
        Ok(Answer::of_body(&body)?)
    }
}

/// Reason why a request has failed.
#[derive(Debug)]
enum Failure {
    Unreachable(String),
    TimedOut,
    /// The connection was closed before the answer.
    Lost(String),
    Bad(String),
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        use ureq::Error;
        match error {
            Error::Timeout(_) => Failure::TimedOut,
            Error::Io(error) => Failure::of_io(&error),
            Error::HostNotFound
            | Error::ConnectionFailed
            | Error::Tls(_)
            | Error::Rustls(_)
            | Error::BadUri(_) => Failure::Unreachable(error.to_string()),
            other => Failure::Bad(other.to_string()),
        }
    }
}

impl Failure {
    fn of_io(error: &io::Error) -> Self {
        let reason = error.to_string();
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::TimedOut,
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => Failure::Lost(reason),
            _ => Failure::Unreachable(reason),
        }
    }
}

impl From<BadAnswer> for Failure {
    fn from(bad: BadAnswer) -> Self {
        Failure::Bad(bad.to_string())
    }
}

/// Returns the header with user name and password of a URL, which has some characters of them in
/// escaped form.
fn authorization(url: &Url) -> Option<String> {
    let plain = |text: &str| match glib::Uri::unescape_bytes(text, None) {
        Ok(bytes) => bytes.to_vec(),
        Err(_) => text.as_bytes().to_vec(),
    };
    let (user, password) = (url.username(), url.password());
    if user.is_empty() && password.is_none() {
        return None;
    }
    let pair = [plain(user), plain(password.unwrap_or_default())].join(&b':');
    Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

/// Returns the root certificates of the system, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn system_roots() -> Result<Vec<Certificate<'static>>, InvalidAuthUrl> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let reason = loaded.errors.first().map(|error| format!(" ({error})"));
        return Err(InvalidAuthUrl::NoRoots(reason.unwrap_or_default()));
    }
    let roots = loaded.certs.iter();
    Ok(roots
        .map(|root| Certificate::from_der(root).to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_the_url_are_sent_as_they_are_meant() {
        let header = |url: &str| authorization(&Url::parse(url).unwrap());
        let basic = |pair: &str| Some(format!("Basic {}", BASE64_STANDARD.encode(pair)));
        for (url, expected) in [
            ("http://host/", None),
            ("http://user:secret@host/", basic("user:secret")),
            ("http://u%40h:p%3a%2f+%C3%A9@host/", basic("u@h:p:/+é")),
            ("http://user@host/", basic("user:")),
            ("http://:secret@host/", basic(":secret")),
            ("http://u%zz:%@host/", basic("u%zz:%")),
        ] {
            assert_eq!(header(url), expected, "{url}");
        }
    }

    #[test]
    fn urls_that_cannot_be_asked_are_refused_without_their_secrets() {
        let new = |url| Authorizer::new(url, Duration::from_secs(1));
        for (url, reason) in [
            ("auth", "relative URL without a base"),
            ("ftp://u:hidden@h/", "the scheme is ftp"),
            ("http://", "empty host"),
            ("http:///hidden", ""),
        ] {
            match new(url) {
                Ok(authorizer) => assert_eq!(authorizer.server(), "hidden:80"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(reason) && !text.contains("hidden"), "{text}");
                }
            }
        }
        let authorizer = new("http://u:hidden@[::1]:9/a?key=hidden#x").unwrap();
        assert_eq!(authorizer.server(), "[::1]:9");
        assert_eq!(authorizer.url, "http://u:hidden@[::1]:9/a?key=hidden");
        assert!(!format!("{authorizer:?}").contains("hidden"));
    }
}
