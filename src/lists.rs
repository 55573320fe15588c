// SPDX-License-Identifier: MPL-2.0

//! Lists of strings as properties: a GStrv, and its text form for pipeline descriptions.
//!
//! A list has one entry a line, or several with commas between them. The array form of GStreamer,
//! `<first, second>`, is accepted too.

use gst::glib;
use gst::prelude::*;

/// Parses the text form of a list. Text without any entry is an empty list. An empty entry between
/// commas stays, since no property accepts it: a list must not pass as one without that entry.
pub(crate) fn parse(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if text.starts_with('<') {
        return parse_array(text);
    }
    let quoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let text = quoted.unwrap_or(text);
    let mut entries = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let line = line.trim();
        let line = line.strip_suffix(',').unwrap_or(line);
        entries.extend(line.split(',').map(|entry| entry.trim().to_owned()));
    }
    Some(entries)
}

/// Parses the array form. GStreamer's own parser of it differs between versions: 1.26 rejects entries
/// without quotes.
fn parse_array(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('<')?.strip_suffix('>')?.trim();
    if inner.is_empty() {
        return Some(Vec::new());
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    let ends_entry = |character: char| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match character {
            '\\' => is_escaped = !was_escaped,
            '"' => is_quoted ^= !was_escaped,
            _ => {}
        }
        character == ',' && !is_quoted
    };
    inner.split(ends_entry).map(parse_entry).collect()
}

/// Parses an entry of the array form: perhaps with its type before it, and perhaps in quotes.
fn parse_entry(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix("(string)").unwrap_or(text).trim();
    glib::Value::deserialize(text, String::static_type())
        .ok()?
        .get()
        .ok()
}

/// Returns the entries of a list whose entries contain no comma. Some languages make a list of one
/// text with several entries.
pub(crate) fn split_entries(entries: Vec<String>) -> Vec<String> {
    let parts = |entry: String| match entry.contains([',', '\n']) {
        true => parse(&entry).unwrap_or_default(),
        false => vec![entry.trim().to_owned()],
    };
    entries.into_iter().flat_map(parts).collect()
}

/// Makes GStreamer accept the text form of a GStrv, for the properties of a pipeline description.
///
/// Versions before 1.26 have none, and refuse to set such a property. Later ones have their own, which
/// demands quotes within the array form, and warn where a plugin replaces it.
pub(crate) fn register_text_form() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        let has_form = glib::Value::deserialize("a", Vec::<String>::static_type()).is_ok();
        if !has_form {
            ffi::register();
        }
    });
}

/// Unsafe, since GStreamer's table of text forms has no safe interface. It handles properties that
/// the application sets, and nothing that a client sends.
#[allow(unsafe_code)]
mod ffi {
    use std::ffi::{CStr, c_char, c_int};
    use std::sync::LazyLock;

    use glib::gobject_ffi::GValue;
    use glib::translate::{IntoGlib, ToGlibPtr};
    use gst::prelude::*;
    use gst::{ffi, glib};

    struct Table(ffi::GstValueTable);

    // SAFETY: the table holds function pointers and a type number, and is never changed.
    unsafe impl Send for Table {}
    // SAFETY: as above.
    unsafe impl Sync for Table {}

    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        Table(ffi::GstValueTable {
            type_: Vec::<String>::static_type().into_glib(),
            compare: Some(compare),
            serialize: Some(serialize),
            deserialize: Some(deserialize),
            deserialize_with_pspec: None,
            hash: None,
            _gst_reserved: [std::ptr::null_mut(); 2],
        })
    });

    pub(super) fn register() {
        // SAFETY: GStreamer is initialized where a plugin is, and the table lives as long as the
        // process.
        unsafe { ffi::gst_value_register(&TABLE.0) }
    }

    /// # Safety
    ///
    /// The value is valid, and of the type of the table.
    unsafe fn entries(value: *const GValue) -> Vec<String> {
        // SAFETY: as demanded of the caller.
        let value = unsafe { &*value.cast::<glib::Value>() };
        value.get().unwrap_or_default()
    }

    unsafe extern "C" fn compare(first: *const GValue, second: *const GValue) -> c_int {
        // SAFETY: GStreamer passes valid values of the type of the table.
        match unsafe { entries(first) == entries(second) } {
            true => ffi::GST_VALUE_EQUAL,
            false => ffi::GST_VALUE_UNORDERED,
        }
    }

    unsafe extern "C" fn serialize(value: *const GValue) -> *mut c_char {
        // SAFETY: GStreamer passes a valid value of the type of the table.
        unsafe { entries(value) }.join(",").to_glib_full()
    }

    unsafe extern "C" fn deserialize(
        value: *mut GValue,
        text: *const c_char,
    ) -> glib::ffi::gboolean {
        if text.is_null() {
            return glib::ffi::GFALSE;
        }
        // SAFETY: GStreamer passes a text that ends with a zero byte.
        let text = unsafe { CStr::from_ptr(text) };
        let Some(entries) = text.to_str().ok().and_then(super::parse) else {
            return glib::ffi::GFALSE;
        };
        // SAFETY: GStreamer passes a value that is initialized for the type of the table. The assignment
        // drops what it holds.
        unsafe { *value.cast::<glib::Value>() = entries.to_value() };
        glib::ffi::GTRUE
    }
}

/// Returns a number of any type, of a property that holds several.
pub(crate) fn number(value: &glib::Value) -> Option<f64> {
    let integer = value.get::<i32>().map(f64::from);
    let unsigned = || value.get::<u32>().map(f64::from);
    let long = || value.get::<i64>().map(|number| number as f64);
    let unsigned_long = || value.get::<u64>().map(|number| number as f64);
    let float = || {
        value
            .get::<f64>()
            .or_else(|_| value.get::<f32>().map(f64::from))
    };
    let fraction = || {
        let fraction = value.get::<gst::Fraction>();
        fraction.map(|f| f64::from(f.numer()) / f64::from(f.denom()))
    };
    let number = integer.or_else(|_| unsigned()).or_else(|_| long());
    let number = number.or_else(|_| unsigned_long()).or_else(|_| float());
    number.ok().or_else(|| fraction().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn lists_have_commas_or_lines_or_the_form_of_arrays() {
        gst::init().unwrap();
        for (text, expected) in [
            ("h264,aac", &["h264", "aac"][..]),
            (" h264 , aac, ", &["h264", "aac"]),
            ("192.0.2.0/24,::1", &["192.0.2.0/24", "::1"]),
            ("\n one\n\ntwo,\n", &["one", "two"]),
            ("\"a,b\"", &["a", "b"]),
            ("<10.0.0.0/33>", &["10.0.0.0/33"]),
            ("<(string)\"a b\", (string)c>", &["a b", "c"]),
            ("<a, \"b, \\\"c\">", &["a", "b, \"c"]),
            ("<\"\">", &[""]),
            ("<>", &[]),
            ("", &[]),
            (" \n", &[]),
            ("one,,two", &["one", "", "two"]),
            (",", &[""]),
        ] {
            assert_eq!(parse(text), Some(strings(expected)), "{text:?}");
        }
        assert_eq!(parse("<a"), None);
    }

    #[test]
    fn numbers_of_every_type_are_read() {
        gst::init().unwrap();
        let values = [
            7_i32.to_value(),
            7_u32.to_value(),
            7_i64.to_value(),
            7_u64.to_value(),
            7.0_f32.to_value(),
            7.0_f64.to_value(),
            gst::Fraction::new(14, 2).to_value(),
        ];
        for value in values {
            assert_eq!(number(&value), Some(7.0), "{value:?}");
        }
        assert_eq!(number(&"7".to_value()), None);
    }

    #[test]
    fn one_text_with_several_entries_is_split() {
        let entries = split_entries(strings(&["h264, aac", " opus", ""]));
        assert_eq!(entries, strings(&["h264", "aac", "opus", ""]));
    }

    #[test]
    fn the_text_form_of_a_list_reads_back_as_it_was_set() {
        gst::init().unwrap();
        register_text_form();
        let list_type = Vec::<String>::static_type();
        let value = glib::Value::deserialize("a,b", list_type).unwrap();
        assert_eq!(value.get::<Vec<String>>().unwrap(), ["a", "b"]);
        assert_eq!(value.serialize().unwrap(), "a,b");
        assert!(glib::Value::deserialize("<a", list_type).is_err());
    }
}
