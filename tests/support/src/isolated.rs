// SPDX-License-Identifier: MPL-2.0

//! Tests that count what their process has, where no other test has anything.

use std::process::Command;

use super::clients::Running;

/// Set in a process that one test has for itself.
const ISOLATED: &str = "RTMP2SERVER_TEST_APART";

/// Runs a test again, in a process of its own. Says whether this is that process, where the test has to go on.
#[track_caller]
pub fn is_isolated(test: &str) -> bool {
    if std::env::var_os(ISOLATED).is_some() {
        return true;
    }
    assert_exists(test);
    let output = Running::spawn(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ISOLATED, "1"),
    );
    let output = output.wait();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    false
}

/// Asserts that a test has this name: one that does not exist would run, and pass, as no test at all.
#[track_caller]
pub fn assert_exists(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--list", "--exact", test]).output().unwrap();
    let list = String::from_utf8_lossy(&output.stdout);
    assert!(list.contains(&format!("{test}: test")), "no test {test}");
}
