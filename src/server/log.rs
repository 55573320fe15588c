// SPDX-License-Identifier: MPL-2.0

use std::sync::LazyLock;

/// The debug category of the server's log lines.
pub(crate) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2server",
        gst::DebugColorFlags::empty(),
        Some("RTMP server"),
    )
});
