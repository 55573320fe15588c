// SPDX-License-Identifier: MPL-2.0

//! The field of the caps of live FLV by which decodebin3, decodebin and parsebin choose a demuxer:
//! GStreamer's flvdemux or eflvlivedemux, which has a higher rank, but does not accept caps without it.

/// Says if a live stream is Enhanced FLV. Files do not have it, so that flvdemux keeps them.
pub(crate) const ENHANCED: &str = "enhanced";

/// The first version of GStreamer, with its development versions, whose decodebin3 fails on some
/// plain streams behind flvdemux: it looks for a decoder of H.264 before flvdemux's parser has said that
/// buffers are whole access units, and finds none.
const FAILS_FROM: (u32, u32) = (1, 25);

/// Returns the field's value for a stream, if its caps have it.
pub(crate) fn enhanced_field(is_enhanced: bool) -> Option<bool> {
    let (major, minor, ..) = gst::version();
    field(is_enhanced, (major, minor))
}

fn field(is_enhanced: bool, version: (u32, u32)) -> Option<bool> {
    (is_enhanced || version >= FAILS_FROM).then_some(is_enhanced)
}

/// Returns the caps that eflvlivedemux accepts: those with the field.
pub(crate) fn demuxer_caps() -> gst::Caps {
    let both = gst::List::new([true, false]);
    let caps = gst::Caps::builder("video/x-flv").field(ENHANCED, both);
    caps.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns which streams eflvlivedemux is chosen for: enhanced ones, and plain ones.
    fn chosen(version: (u32, u32)) -> [bool; 2] {
        gst::init().unwrap();
        let accepted = demuxer_caps();
        let file = gst::Caps::new_empty_simple("video/x-flv");
        assert!(!file.is_subset(&accepted), "files go to flvdemux");
        [true, false].map(|is_enhanced| {
            let stream = gst::Caps::builder("video/x-flv")
                .field("streamheader", 1)
                .field_if_some(ENHANCED, field(is_enhanced, version));
            stream.build().is_subset(&accepted)
        })
    }

    #[test]
    fn plain_streams_go_to_flvdemux_where_decodebin3_can_use_it() {
        assert_eq!(chosen((1, 22)), [true, false]);
        assert_eq!(chosen((1, 24)), [true, false]);
        assert_eq!(chosen((1, 26)), [true, true]);
        assert_eq!(chosen((1, 28)), [true, true]);
        assert_eq!(chosen((2, 0)), [true, true]);
    }
}
