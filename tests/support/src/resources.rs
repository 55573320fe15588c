// SPDX-License-Identifier: MPL-2.0

//! Resources of this process.

use std::collections::BTreeMap;

/// A flag of a task in `/proc`: it is exiting. A thread that was joined may still be in the list
/// for a moment.
const EXITING: u32 = 0x4;

/// Returns the name of a thread, if it still exists.
fn thread_name(task: &std::path::Path) -> Option<String> {
    let stat = std::fs::read_to_string(task.join("stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let flags: u32 = rest.split_whitespace().nth(6)?.parse().ok()?;
    (flags & EXITING == 0).then(|| name.to_owned())
}

/// Returns the number of threads by name, and the number of descriptors.
pub fn resources() -> (BTreeMap<String, usize>, usize) {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let name = thread_name(&task.unwrap().path());
        // GStreamer keeps threads that streamed in a pool, one or two of them, for the next pad.
        if let Some(name) = name.filter(|name| name != "src:src") {
            *threads.entry(name).or_default() += 1;
        }
    }
    (threads, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

/// Returns the number of times that the current thread has waited for something.
pub fn waits_of_this_thread() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let name = "voluntary_ctxt_switches:";
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

/// Returns the memory of this process in kB, shared pages by their share.
pub fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.unwrap().trim().trim_end_matches("kB").trim();
    number.parse().unwrap()
}

/// Returns the system's names of listening sockets of a port: no other socket gets the same name.
pub fn listening(port: u16) -> Vec<String> {
    // A socket for both families is in the second one.
    let files = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let text = files.map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let text = text.concat();
    let port = format!(":{port:04X}");
    let rows = text.lines().map(|line| line.split_whitespace().collect());
    let listening = rows.filter(|row: &Vec<&str>| row[1].ends_with(&port) && row[3] == "0A");
    listening.map(|row| row[9].to_owned()).collect()
}
