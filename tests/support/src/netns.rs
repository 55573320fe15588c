// SPDX-License-Identifier: MPL-2.0

//! A network of the test's own, whose cables can be pulled.
//!
//! Everything is in namespaces that the test creates: no packet leaves them, and they end with the
//! test. Needs root, or permission for users to create namespaces.

use std::process::{Command, ExitStatus};

use super::isolated::assert_exists;
use super::program::end_of;

/// Set in the process of a test that is in its own network.
const INSIDE: &str = "RTMP2SERVER_TEST_LAB";

/// The address of the server. These addresses are reserved for tests of networks (RFC 2544).
pub const SERVER: &str = "198.18.0.1";

/// Runs a test again in a network of its own. Returns `None` inside of that network, where the test
/// continues.
pub fn enter(test: &str) -> Option<ExitStatus> {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        // With a fixed address: otherwise it has that of a port, and another one when that port
        // goes.
        ip("link add switch address 02:00:00:00:00:01 type bridge");
        ip("link set switch up");
        ip(&format!("address add {SERVER}/16 dev switch"));
        return None;
    }
    assert_exists(test);
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    // Names of network namespaces are files in /run.
    let script = "mount -t tmpfs none /run && exec \"$0\" \"$@\"";
    let process = command
        .args(["--net", "--mount", "--", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .spawn();
    let status = end_of(&mut process.expect("unshare of util-linux starts"));
    Some(status.expect("it ends"))
}

fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    let output = command.args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
}

/// A machine at the end of a cable.
#[derive(Debug)]
pub struct Machine {
    name: String,
    address: String,
}

impl Machine {
    /// Each machine needs a number of its own, from 1.
    pub fn new(number: u8) -> Self {
        let name = format!("machine{number}");
        let address = format!("198.18.{number}.1");
        ip(&format!("netns add {name}"));
        let cable = format!("link add port{number} type veth peer name cable netns {name}");
        ip(&cable);
        ip(&format!("link set port{number} up"));
        ip(&format!("-n {name} link set cable up"));
        let machine = Machine { name, address };
        machine.set_address("add", &machine.address);
        machine.plug_in();
        machine
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    fn port(&self) -> String {
        self.name.replace("machine", "port")
    }

    fn set_address(&self, action: &str, address: &str) {
        ip(&format!(
            "-n {} address {action} {address}/16 dev cable",
            self.name
        ));
    }

    pub fn plug_in(&self) {
        ip(&format!("link set {} master switch", self.port()));
    }

    /// Pulls the cable out without either end noticing.
    pub fn pull_out(&self) {
        ip(&format!("link set {} nomaster", self.port()));
    }

    /// Changes the address, as a phone that moves to another network: packets to the old one are
    /// lost.
    pub fn change_address(&mut self) {
        let new = format!("{}23", self.address);
        self.set_address("del", &self.address);
        self.set_address("add", &new);
        self.address = new;
    }

    /// Returns a command that runs on this machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}
