// SPDX-License-Identifier: MPL-2.0

//! Records the version and the commit for the plugin.

fn main() {
    gst_plugin_version_helper::info();
}
