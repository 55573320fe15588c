// SPDX-License-Identifier: MPL-2.0

//! Assigns users to relays: all relays of a list agree without communicating.
//!
//! Rendezvous hashing: each relay and the user together make a number, and the relay with the
//! highest number serves the user. So a relay that leaves gives up its own users alone, and a new
//! one takes an even share of all.

use std::cmp::Reverse;

use sha2::{Digest, Sha256};

use crate::catalog::StreamName;

#[derive(Debug, Clone, Default)]
pub struct Placement {
    relays: Vec<String>,
    this: Option<String>,
}

impl Placement {
    /// The relays as `rtmp[s]://host:port`, including this one. Without any, all users are served
    /// here.
    pub fn new(relays: Vec<String>, this: Option<String>) -> Self {
        Placement { relays, this }
    }

    /// Returns the relay that this stream belongs to, unless it is this one.
    pub fn elsewhere(&self, name: &StreamName) -> Option<&str> {
        let this = self.this.as_deref()?;
        self.home(&key(name)).filter(|relay| *relay != this)
    }

    fn home(&self, key: &str) -> Option<&str> {
        let relays = self.relays.iter().map(String::as_str);
        // All relays choose the same one of two equal numbers, which do not happen.
        relays.max_by_key(|relay| (weight(relay, key), Reverse(*relay)))
    }
}

/// The streams of one user stay together. A stream without a user counts as a user.
fn key(name: &StreamName) -> String {
    match &name.user {
        Some(user) => user.clone(),
        None => name.to_string(),
    }
}

/// The same on all machines and in all versions: a test fixes it.
fn weight(relay: &str, key: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(relay);
    // A byte that is in neither.
    hash.update([0]);
    hash.update(key);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn relays(count: usize) -> Vec<String> {
        (0..count)
            .map(|number| format!("rtmp://relay{number}.example:1935"))
            .collect()
    }

    fn user(number: usize) -> StreamName {
        StreamName::new("live", Some(&format!("user{number}")), "cam").unwrap()
    }

    /// Returns where a relay of the list sends a stream.
    fn asked_of<'a>(relays: &'a [String], this: &'a str, name: &StreamName) -> String {
        let ring = Placement::new(relays.to_vec(), Some(this.to_owned()));
        ring.elsewhere(name).unwrap_or(this).to_owned()
    }

    #[test]
    fn weights_never_change() {
        let weight = weight("rtmp://relay0.example:1935", "user0");
        assert_eq!(
            HEXLOWER.encode(&weight),
            "824f2e9c41663b6cbe25e2c2a97bf30540e0ebeeb8e38d0ddf29da5eec6a2681"
        );
    }

    #[test]
    fn all_users_are_served_without_relays() {
        assert_eq!(Placement::default().elsewhere(&user(1)), None);
        let alone = relays(1);
        assert_eq!(asked_of(&alone, &alone[0], &user(1)), alone[0]);
    }

    #[test]
    fn streams_of_a_user_stay_together() {
        let relays = relays(5);
        for number in 0..100 {
            let user = format!("user{number}");
            let home = |application: &str, stream: &str| {
                let name = StreamName::new(application, Some(&user), stream).unwrap();
                asked_of(&relays, &relays[0], &name)
            };
            assert_eq!(home("live", "front"), home("other", "back"));
        }
        let without_user = (0..100).map(|number| {
            let name = StreamName::new("live", None, &format!("cam{number}")).unwrap();
            asked_of(&relays, &relays[0], &name)
        });
        let homes: std::collections::BTreeSet<String> = without_user.collect();
        assert_eq!(homes.len(), 5);
    }

    #[test]
    fn each_relay_has_its_share() {
        const USERS: usize = 10_000;
        for count in 2..=8 {
            let relays = relays(count);
            let ring = Placement::new(relays.clone(), None);
            let mut shares = BTreeMap::new();
            for number in 0..USERS {
                *shares
                    .entry(ring.home(&key(&user(number))).unwrap())
                    .or_insert(0) += 1;
            }
            let fair = USERS / count;
            for (relay, share) in shares {
                assert!(
                    share > fair * 85 / 100 && share < fair * 115 / 100,
                    "{relay} of {count} has {share}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(properties::cases(256))]

        #[test]
        fn all_relays_agree_in_any_order(
            (ordered, shuffled) in (1..10_usize).prop_flat_map(|count| {
                (Just(relays(count)), Just(relays(count)).prop_shuffle())
            }),
            users in prop::collection::vec(any::<usize>(), 1..20),
        ) {
            for number in users {
                let home = asked_of(&ordered, &ordered[0], &user(number));
                for this in &shuffled {
                    prop_assert_eq!(&asked_of(&shuffled, this, &user(number)), &home);
                }
            }
        }

        #[test]
        fn a_relay_that_leaves_moves_only_its_own_users(
            count in 2..10_usize,
            gone in any::<prop::sample::Index>(),
            users in prop::collection::vec(any::<usize>(), 1..100),
        ) {
            let all = relays(count);
            let mut fewer = all.clone();
            let gone = fewer.remove(gone.index(count));
            let (all, fewer) = (Placement::new(all, None), Placement::new(fewer, None));
            for number in users {
                let key = key(&user(number));
                let (before, after) = (all.home(&key).unwrap(), fewer.home(&key).unwrap());
                // Read in reverse: a new relay takes users, and moves none between others.
                prop_assert!(before == after || before == gone);
            }
        }
    }
}
