// SPDX-License-Identifier: MPL-2.0

//! Settings of property tests.

use std::env;

use proptest::test_runner::{Config, RngSeed};

/// With `random` in it, property tests draw fresh cases.
const SEED: &str = "RTMP2SERVER_TEST_SEED";

/// Number of cases of each test, instead of its own one. Read by proptest.
const CASES: &str = "PROPTEST_CASES";

/// Returns the settings of a property test with this number of cases.
///
/// The cases are the same in each run, so that only a change of the code makes a test fail.
/// `RTMP2SERVER_TEST_SEED=random` draws fresh ones, and `PROPTEST_RNG_SEED` selects the seed.
/// A failure prints its input, and leaves no file.
pub fn cases(cases: u32) -> Config {
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if env::var_os(CASES).is_none() {
        config.cases = cases;
    }
    let is_random = env::var_os(SEED).is_some_and(|seed| seed == "random");
    if config.rng_seed == RngSeed::Random && !is_random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}
