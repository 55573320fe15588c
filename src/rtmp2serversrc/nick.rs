// SPDX-License-Identifier: MPL-2.0

use gst::glib;
use gst::prelude::*;

/// Returns the name that an enumeration's value has in properties.
pub(super) fn nick(value: impl ToValue) -> String {
    let value = value.to_value();
    let found = glib::EnumValue::from_value(&value);
    found.map_or_else(String::new, |(_, value)| value.nick().to_owned())
}
