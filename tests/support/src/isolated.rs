// SPDX-License-Identifier: MPL-2.0

//! Tests in a process of their own, whose resources they can count.

use std::process::Command;

use super::clients::Running;

/// Set in the process of an isolated test.
const ISOLATED: &str = "RTMP2SERVER_TEST_APART";

/// Runs a test again, in a process of its own. Returns whether this is that process, in which the
/// test continues.
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

/// Asserts that a test has this name: a filter that matches no test passes.
#[track_caller]
pub fn assert_exists(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--list", "--exact", test]).output().unwrap();
    let list = String::from_utf8_lossy(&output.stdout);
    assert!(list.contains(&format!("{test}: test")), "no test {test}");
}
