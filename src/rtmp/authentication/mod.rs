// SPDX-License-Identifier: MPL-2.0

//! Challenge authentication in `connect`, as encoders speak it: `authmod=adobe` and `authmod=llnw`.
//!
//! A client that is not let in yet gets an error whose description says what to do, and comes
//! again, on a new connection, with its answer in the query of the application. Nothing is
//! kept in between: a challenge is a code over the user name and the time, made with a
//! key that only this server has, so it can be made again when the answer comes.

mod adobe;
mod llnw;

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// An answer is good for this long at least, and for twice as long at most.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(60);

/// ffmpeg reads 255 bytes of a description, and the user name is in there.
pub const MAX_USERNAME: usize = 90;

/// How clients prove that they know the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Adobe,
    Llnw,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Adobe => "adobe",
            Method::Llnw => "llnw",
        }
    }
}

/// Who may publish.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub method: Method,
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// What to do with a client that wants to connect. Descriptions go into the error that it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChallengeOutcome {
    Granted,
    /// It should come again.
    Challenged(String),
    /// Its answer is wrong, or too old.
    Failed(String),
}

/// Makes challenges, and knows them again.
#[derive(Clone)]
pub struct Challenger {
    key: [u8; 32],
}

impl std::fmt::Debug for Challenger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenger").finish_non_exhaustive()
    }
}

impl Challenger {
    /// `key` must be unpredictable.
    pub fn new(key: [u8; 32]) -> Self {
        Challenger { key }
    }

    /// What to answer a client that asks for `application`, query included, of which `credentials`
    /// are those that may be meant: all of this method. `now` is any clock that goes steadily.
    pub fn evaluate(
        &self,
        method: Method,
        credentials: &[&Credentials],
        application: &str,
        now: Duration,
    ) -> ChallengeOutcome {
        let query = ApplicationQuery::new(application);
        let user = match query.get("user") {
            Some(user) if query.get("authmod") == Some(method.name()) => user,
            _ => {
                let name = method.name();
                let description = format!("{PREFIX} : [ code=403 need auth; authmod={name} ] : ");
                return ChallengeOutcome::Challenged(description);
            }
        };
        let reject = |reason: &str| {
            format!(
                "{PREFIX} : [ authmod={} ] : ?reason={reason}",
                method.name()
            )
        };
        // Whether there is such a user is nobody's business.
        if user.len() > MAX_USERNAME {
            return ChallengeOutcome::Failed(reject("authfailed"));
        }
        if query.get("response").is_none() {
            let challenge = Challenge::new(self, user, now);
            let parameters = match method {
                Method::Adobe => adobe::parameters(user, &challenge),
                Method::Llnw => llnw::parameters(user, &challenge),
            };
            return ChallengeOutcome::Challenged(reject("needauth") + &parameters);
        }
        let mut granted = false;
        for credentials in credentials {
            granted |= self.verify(credentials, application, now);
        }
        if granted {
            ChallengeOutcome::Granted
        } else {
            ChallengeOutcome::Failed(reject("authfailed"))
        }
    }

    /// Whether the query of an application has the right answer to a challenge that is not too old.
    pub fn verify(&self, credentials: &Credentials, application: &str, now: Duration) -> bool {
        let query = ApplicationQuery::new(application);
        let method = query.get("authmod");
        let (Some(user), Some(response)) = (query.get("user"), query.get("response")) else {
            return false;
        };
        if user != credentials.username || method != Some(credentials.method.name()) {
            return false;
        }
        let earlier = now.saturating_sub(CHALLENGE_LIFETIME);
        let mut is_valid = false;
        for time in [now, earlier] {
            let challenge = Challenge::new(self, user, time);
            let expected = match credentials.method {
                Method::Adobe => adobe::response(credentials, &challenge, &query),
                Method::Llnw => llnw::response(credentials, &challenge, &query, application),
            };
            // A buggy librtmp puts garbage behind its response.
            let length = response.len().min(expected.len());
            let matches = response.as_bytes()[..length].ct_eq(expected.as_bytes());
            is_valid |= bool::from(matches);
        }
        is_valid
    }

    /// An unpredictable text, the same for the same input.
    fn keyed_hash(&self, purpose: &str, user: &str, time: u64) -> [u8; 32] {
        // A key of any length is fine with HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(purpose.as_bytes());
        mac.update(&time.to_be_bytes());
        mac.update(user.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

const PREFIX: &str = "[ AccessManager.Reject ]";

/// What a client has to work into its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Challenge {
    /// The same for a user at all times.
    salt: String,
    token: String,
}

impl Challenge {
    fn new(challenger: &Challenger, user: &str, now: Duration) -> Self {
        let period = now.as_secs() / CHALLENGE_LIFETIME.as_secs();
        // Lengths that need no padding: an equals sign is one more thing to get wrong.
        let encode = |hash: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(hash);
        Challenge {
            salt: encode(&challenger.keyed_hash("salt", user, 0)[..9]),
            token: encode(&challenger.keyed_hash("token", user, period)[..18]),
        }
    }
}

/// The query of an application. Values are as they came: clients escape nothing.
#[derive(Debug, Clone, Copy)]
struct ApplicationQuery<'a>(&'a str);

impl<'a> ApplicationQuery<'a> {
    fn new(application: &'a str) -> Self {
        ApplicationQuery(application.split_once('?').map_or("", |(_, query)| query))
    }

    fn get(self, name: &str) -> Option<&'a str> {
        // Base64 has equals signs, so the first one counts.
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests;
