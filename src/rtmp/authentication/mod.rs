// SPDX-License-Identifier: MPL-2.0

//! Challenge authentication in `connect`, as encoders speak it: `authmod=adobe` and `authmod=llnw`.
//!
//! A client without a valid answer gets an error whose description holds the challenge. It
//! connects again, on a new connection, with its answer in the query of the application. No state
//! is kept in between: a challenge is a keyed hash of the user name and the time, with a key that
//! only this server has, so it can be computed again when the answer arrives.

mod adobe;
mod challenge;
mod credentials;
mod llnw;

use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use challenge::{ApplicationQuery, Challenge};
pub use credentials::{Credentials, Method};

/// Minimum time for which an answer is valid. The maximum is twice as long.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(60);

/// Maximum bytes of a user name. ffmpeg reads 255 bytes of a description that contains it.
pub const MAX_USERNAME: usize = 90;

/// Result of the evaluation of a `connect`. Descriptions are for the error sent to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChallengeOutcome {
    Granted,
    /// The client should connect again with its answer.
    Challenged(String),
    /// The client's answer is wrong or too old.
    Failed(String),
}

/// Makes challenges and verifies their answers.
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

    /// Evaluates a `connect` for `application`, query included. `credentials` are all those of the
    /// candidates, and all have this method. `now` is the time of any monotonic clock.
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
        // An unknown user gets the same answers: the existence of a user is not revealed.
        if user.len() > MAX_USERNAME {
            return ChallengeOutcome::Failed(reject("authfailed"));
        }
        if query.get("response").is_none() {
            let challenge = self.challenge(user, now);
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

    /// Returns true if the query of an application has the right answer to a recent challenge.
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
            let challenge = self.challenge(user, time);
            let expected = match credentials.method {
                Method::Adobe => adobe::response(credentials, &challenge, &query),
                Method::Llnw => llnw::response(credentials, &challenge, &query, application),
            };
            // A buggy librtmp puts garbage after its response.
            let length = response.len().min(expected.len());
            let matches = response.as_bytes()[..length].ct_eq(expected.as_bytes());
            is_valid |= bool::from(matches);
        }
        is_valid
    }

    fn challenge(&self, user: &str, now: Duration) -> Challenge {
        let period = now.as_secs() / CHALLENGE_LIFETIME.as_secs();
        // Lengths that need no padding: clients can mishandle an equals sign.
        let encode = |hash: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(hash);
        Challenge {
            salt: encode(&self.keyed_hash("salt", user, 0)[..9]),
            token: encode(&self.keyed_hash("token", user, period)[..18]),
        }
    }

    /// Returns an unpredictable hash, the same for the same input.
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

#[cfg(test)]
mod tests;
