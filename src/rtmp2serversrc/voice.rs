// SPDX-License-Identifier: MPL-2.0

//! INFO and WARNING messages for people, and the same lines in the log.

use std::net::SocketAddr;
use std::time::Duration;

use gst::prelude::*;

use super::CAT;
use super::listening;
use super::nick::nick;
use super::settings::Settings;
use crate::server::{Publisher, RejectReason, ShownKey, ShownPath};

/// The properties that messages depend on.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    is_verbose: bool,
    keys: super::LogKeys,
    /// The route that publishers have to use.
    accepted: String,
    /// Names that the route accepts, where it has no fixed ones.
    note: &'static str,
    /// Names and values of properties that a rejected client may have met.
    authmod: String,
    allowed_addresses: String,
    accepted_codecs: String,
    stall_timeout: u32,
    auth_timeout: u32,
}

impl Voice {
    pub(crate) fn new(settings: &Settings) -> Self {
        let keys = settings.log_keys;
        let (accepted, note) = accepted(settings, keys);
        Voice {
            is_verbose: settings.verbose_messages,
            keys,
            accepted,
            note,
            authmod: nick(settings.authmod),
            allowed_addresses: settings.allowed_addresses().join(", "),
            accepted_codecs: settings.accepted_codecs().join(", "),
            stall_timeout: settings.stall_timeout,
            auth_timeout: settings.auth_timeout,
        }
    }

    /// Logs a text, and posts it as an INFO message.
    pub(crate) fn inform(&self, element: &gst::Element, text: &str) {
        gst::info!(CAT, obj = element, "{text}");
        if self.is_verbose {
            // gst-launch-1.0 prints the debug text alone.
            let message = gst::message::Info::builder(gst::ResourceError::OpenRead, text);
            let _ = element.post_message(message.debug(text).src(element).build());
        }
    }

    /// Logs a text, and posts it as a WARNING message.
    pub(crate) fn warn(&self, element: &gst::Element, text: &str) {
        gst::warning!(CAT, obj = element, "{text}");
        if self.is_verbose {
            let message = gst::message::Warning::builder(gst::ResourceError::OpenRead, text);
            let _ = element.post_message(message.src(element).build());
        }
    }

    /// Warns of limits that are ignored, since they were set to something invalid.
    pub(crate) fn check_quality(element: &gst::Element, settings: &Settings) {
        if let Err(error) = settings.quality() {
            Voice::new(settings).warn(element, &format!("{error}. No figure is judged"));
        }
    }

    /// Tells where to publish to, from the bound address of the listener.
    pub(crate) fn listening(&self, element: &gst::Element, settings: &Settings, bound: SocketAddr) {
        let urls = listening::text(settings.scheme(), bound, &self.accepted);
        let plain = match settings.has_both_schemes() {
            true => ", and to rtmp:// there too",
            false => "",
        };
        let text = format!("Listening: publish to {urls}{plain}{}", self.note);
        self.inform(element, &text);
    }

    /// Returns a publisher as messages name it: "live/camera1 from 192.0.2.9".
    pub(crate) fn name(&self, publisher: &Publisher) -> String {
        let path = ShownPath {
            application: &publisher.application,
            stream_key: &publisher.stream_key,
            keys: self.keys.into(),
        };
        format!("{path} from {}", publisher.address.ip())
    }

    /// Returns the text about a rejected client: what came, why, and what is accepted.
    pub(crate) fn rejection(&self, publisher: &Publisher, reason: RejectReason) -> String {
        let why = match reason {
            RejectReason::NoApplication | RejectReason::NoStream => {
                return format!(
                    "Refused {}: {}. Accepted here: {}{}",
                    self.name(publisher),
                    match reason {
                        RejectReason::NoApplication => "there is no such application",
                        _ => "there is no such stream key",
                    },
                    self.accepted,
                    self.note
                );
            }
            RejectReason::WrongCredentials => format!(
                "user name or password is wrong, or the answer came too late (authmod={})",
                self.authmod
            ),
            RejectReason::NotAuthenticated => format!(
                "it has not given the user name and password of this stream (authmod={})",
                self.authmod
            ),
            RejectReason::Address => format!(
                "its address is not in allowed-addresses ({})",
                self.allowed_addresses
            ),
            RejectReason::Denied => {
                "a handler of publisher-connecting returned false (in Python, one \
                                     that returns nothing does so too: return True)"
                    .to_owned()
            }
            RejectReason::Busy => format!(
                "the stream has a publisher already. See publisher-policy; stall-timeout is {} ms",
                self.stall_timeout
            ),
            RejectReason::Ended => {
                "the stream has ended. Set keep-listening=true to accept the next publisher"
                    .to_owned()
            }
            RejectReason::SignatureMissing => {
                "its URL is not signed, and signing-key is set: it needs expires and signature"
                    .to_owned()
            }
            RejectReason::SignatureWrong => {
                "the signature of its URL is wrong: it is that of another key, path or time"
                    .to_owned()
            }
            RejectReason::SignatureExpired => {
                "its URL has expired. Make another one with a later expires".to_owned()
            }
            RejectReason::SignatureAddress => "its URL is signed for another address".to_owned(),
            RejectReason::AuthDenied => "the server of auth-url does not allow it".to_owned(),
            RejectReason::AuthUnreachable => {
                "the server of auth-url can't be reached. The log says why".to_owned()
            }
            RejectReason::AuthTimeout => format!(
                "the server of auth-url has not answered within auth-timeout ({} ms)",
                self.auth_timeout
            ),
            RejectReason::AuthBadAnswer => {
                "the server of auth-url has answered with another status than 20x, 401 and 403, or \
                 with JSON that can't be used. The log says what"
                    .to_owned()
            }
            other => other.status().description,
        };
        format!("Refused {}: {why}", self.name(publisher))
    }

    /// Returns the text about a track in a codec that is not accepted.
    pub(crate) fn refused_codec(&self, publisher: &str, kind: &str, codec: &str) -> String {
        format!(
            "{publisher}: its {kind} is dropped, since {codec} is not in accepted-codecs ({})",
            self.accepted_codecs
        )
    }
}

/// Returns the path of a route with placeholders where any name is accepted, and a note about them.
fn accepted(settings: &Settings, keys: super::LogKeys) -> (String, &'static str) {
    let key = |key: &str| match key.contains('{') {
        // A template is no secret.
        true => key.to_owned(),
        false => ShownKey(key, keys.into()).to_string(),
    };
    match (settings.application(), settings.stream_key()) {
        (Some(application), Some(stream_key)) => {
            let has_variables = application.contains('{') || stream_key.contains('{');
            let note = if has_variables {
                " ({...} is any text)"
            } else {
                ""
            };
            (format!("{application}/{}", key(stream_key)), note)
        }
        (Some(application), None) => (format!("{application}/STREAM-KEY"), " (any stream key)"),
        (None, Some(stream_key)) => (
            format!("APPLICATION/{}", key(stream_key)),
            " (any application)",
        ),
        (None, None) => (
            "APPLICATION/STREAM-KEY".to_owned(),
            " (any application and stream key)",
        ),
    }
}

/// Writes a duration for people: "0.3 s", "62 s", "1 h 5 min".
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voice(properties: &[(&str, &str)]) -> Voice {
        gst::init().unwrap();
        let mut settings = Settings::default();
        for (name, value) in properties {
            settings.set(name, &Some(*value).to_value());
        }
        Voice::new(&settings)
    }

    #[test]
    fn rejections_say_what_came_why_and_what_is_accepted() {
        let voice = voice(&[("application", "live"), ("stream-key", "cam{n}")]);
        let publisher = Publisher::example(1);
        let text = voice.rejection(&publisher, RejectReason::NoStream);
        let expected = "Refused live/key from 127.0.0.1: there is no such stream key. \
                        Accepted here: live/cam{n} ({...} is any text)";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_rejection_has_a_text_that_says_more_than_the_reason() {
        let voice = voice(&[]);
        for reason in [
            RejectReason::NoApplication,
            RejectReason::NoStream,
            RejectReason::WrongCredentials,
            RejectReason::NotAuthenticated,
            RejectReason::Address,
            RejectReason::SignatureMissing,
            RejectReason::SignatureWrong,
            RejectReason::SignatureExpired,
            RejectReason::SignatureAddress,
            RejectReason::AuthDenied,
            RejectReason::AuthUnreachable,
            RejectReason::AuthTimeout,
            RejectReason::AuthBadAnswer,
            RejectReason::Denied,
            RejectReason::Busy,
            RejectReason::Full,
            RejectReason::Ended,
            RejectReason::Draining,
        ] {
            let text = voice.rejection(&Publisher::example(1), reason);
            assert!(
                text.starts_with("Refused live/key from 127.0.0.1: "),
                "{text}"
            );
            assert!(text.len() > 50, "{text}");
        }
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        for (millis, expected) in [
            (340, "0.3 s"),
            (62_000, "62 s"),
            (125_000, "2 min 5 s"),
            (3_900_000 * 2, "2 h 10 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
    }
}
