// SPDX-License-Identifier: MPL-2.0

//! Registration of the plugin.

// The macro documents none of its functions.
#![allow(missing_docs)]

fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    crate::lists::register_text_form();
    crate::rtmp2serversrc::register(plugin)?;
    crate::rtmp2multiserversrc::register(plugin)?;
    crate::rtmp2fallbacksink::register(plugin)?;
    crate::rtmp2recordsink::register(plugin)?;
    crate::eflvdemux::register(plugin)?;
    crate::eflvlivedemux::register(plugin)?;
    crate::rtmp2serverbin::register(plugin)
}

gst::plugin_define!(
    rtmp2server,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "https://crates.io/crates/gst-plugin-rtmp2server",
    env!("BUILD_REL_DATE")
);
