// SPDX-License-Identifier: MPL-2.0

//! Reports to the supervisor that started the program, such as systemd (sd_notify(3)). Without one,
//! nothing happens.

use sd_notify::NotifyState;

use crate::journal;

/// Reports that the program serves: units that come after it may start.
pub fn report_ready() {
    report(&NotifyState::Ready);
}

/// Reports that the program ends by itself.
pub fn report_stopping() {
    report(&NotifyState::Stopping);
}

fn report(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        journal::warning("supervisor")
            .say(format!("the supervisor could not be notified: {error}"));
    }
}
