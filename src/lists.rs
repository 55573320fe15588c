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
/// Versions before 1.26 have none, and refuse to set such a property. That of 1.26 demands quotes within
/// the array form: it becomes one that does not, and is the same for all other texts, since other
/// plugins use it too.
pub(crate) fn register_text_form() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        let list_type = Vec::<String>::static_type();
        let accepts = |text| glib::Value::deserialize(text, list_type).is_ok();
        match (accepts("a"), accepts("<a,b>")) {
            (false, _) => ffi::register(&ffi::OWN),
            (true, false) => ffi::register(&ffi::EXTENDED),
            (true, true) => {}
        }
    });
}

/// Parses the text form of GStreamer 1.26, with or without quotes within the array form.
fn parse_extended(text: &str) -> Option<Vec<String>> {
    match text.trim_start() {
        "" => Some(Vec::new()),
        array if array.starts_with('<') => parse_array(array.trim_end()),
        _ => Some(text.split(',').map(str::to_owned).collect()),
    }
}

/// Returns the text form of GStreamer 1.26.
fn array_form(entries: &[String]) -> String {
    let quoted =
        |entry: &String| format!("\"{}\"", entry.replace('\\', "\\\\").replace('"', "\\\""));
    let quoted: Vec<String> = entries.iter().map(quoted).collect();
    format!("<{}>", quoted.join(","))
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

    pub(super) struct Table(ffi::GstValueTable);

    // SAFETY: the table holds function pointers and a type number, and is never changed.
    unsafe impl Send for Table {}
    // SAFETY: as above.
    unsafe impl Sync for Table {}

    type Serialize = unsafe extern "C" fn(*const GValue) -> *mut c_char;
    type Deserialize = unsafe extern "C" fn(*mut GValue, *const c_char) -> glib::ffi::gboolean;

    /// The text form where GStreamer has none.
    pub(super) static OWN: LazyLock<Table> = LazyLock::new(|| table(serialize, deserialize));

    /// The text form of GStreamer 1.26, extended.
    pub(super) static EXTENDED: LazyLock<Table> =
        LazyLock::new(|| table(serialize_array, deserialize_extended));

    fn table(serialize: Serialize, deserialize: Deserialize) -> Table {
        Table(ffi::GstValueTable {
            type_: Vec::<String>::static_type().into_glib(),
            compare: Some(compare),
            serialize: Some(serialize),
            deserialize: Some(deserialize),
            deserialize_with_pspec: None,
            hash: None,
            _gst_reserved: [std::ptr::null_mut(); 2],
        })
    }

    /// Registers a text form, also in place of another. GStreamer warns of that, which every program
    /// would print at its start, or end with where warnings are fatal.
    pub(super) fn register(table: &'static LazyLock<Table>) {
        let ignored = glib::LogLevels::LEVEL_WARNING;
        let handler = glib::log_set_handler(Some("GStreamer"), ignored, false, false, |_, _, _| ());
        // SAFETY: GStreamer is initialized where a plugin is, and the table lives as long as the
        // process. Any mask of levels is valid.
        unsafe {
            let fatal_levels = glib::ffi::g_log_set_always_fatal(glib::ffi::G_LOG_LEVEL_ERROR);
            ffi::gst_value_register(&table.0);
            glib::ffi::g_log_set_always_fatal(fatal_levels);
        }
        glib::log_remove_handler(Some("GStreamer"), handler);
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

    unsafe extern "C" fn serialize_array(value: *const GValue) -> *mut c_char {
        // SAFETY: as above.
        super::array_form(&unsafe { entries(value) }).to_glib_full()
    }

    unsafe extern "C" fn deserialize(
        value: *mut GValue,
        text: *const c_char,
    ) -> glib::ffi::gboolean {
        // SAFETY: GStreamer passes a value that is initialized for the type of the table, and a text.
        unsafe { assign(value, text, super::parse) }
    }

    unsafe extern "C" fn deserialize_extended(
        value: *mut GValue,
        text: *const c_char,
    ) -> glib::ffi::gboolean {
        // SAFETY: as above.
        unsafe { assign(value, text, super::parse_extended) }
    }

    /// # Safety
    ///
    /// The value is initialized for the type of the table. The text is null, or ends with a zero byte.
    unsafe fn assign(
        value: *mut GValue,
        text: *const c_char,
        parse: fn(&str) -> Option<Vec<String>>,
    ) -> glib::ffi::gboolean {
        if text.is_null() {
            return glib::ffi::GFALSE;
        }
        // SAFETY: as demanded of the caller.
        let text = unsafe { CStr::from_ptr(text) };
        let Some(entries) = text.to_str().ok().and_then(parse) else {
            return glib::ffi::GFALSE;
        };
        // SAFETY: as demanded of the caller. The assignment drops what it holds.
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

    #[test]
    fn a_text_form_in_place_of_another_is_no_warning() {
        use std::sync::atomic::{AtomicU64, Ordering};

        static WARNINGS: AtomicU64 = AtomicU64::new(0);
        gst::init().unwrap();
        glib::log_set_default_handler(|_, _, text| {
            let is_wanted = text.contains("multiple times");
            WARNINGS.fetch_add(is_wanted.into(), Ordering::SeqCst);
        });
        ffi::register(&ffi::OWN);
        ffi::register(&ffi::OWN);
        glib::log_unset_default_handler();
        assert_eq!(WARNINGS.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn the_extended_form_differs_from_that_of_gstreamer_in_the_array_form_alone() {
        gst::init().unwrap();
        for (text, expected, form) in [
            ("a", &["a"][..], "<\"a\">"),
            ("a,b", &["a", "b"], "<\"a\",\"b\">"),
            ("a\nb", &["a\nb"], "<\"a\nb\">"),
            ("\"a,b\"", &["\"a", "b\""], r#"<"\"a","b\"">"#),
            ("{a,b}", &["{a", "b}"], "<\"{a\",\"b}\">"),
            ("", &[], "<>"),
            ("<>", &[], "<>"),
            ("<\"a\", \"b\">", &["a", "b"], "<\"a\",\"b\">"),
            ("<a,b>", &["a", "b"], "<\"a\",\"b\">"),
        ] {
            assert_eq!(parse_extended(text), Some(strings(expected)), "{text:?}");
            assert_eq!(array_form(&strings(expected)), form);
            assert_eq!(parse_extended(form), Some(strings(expected)), "{form:?}");
        }
        assert_eq!(parse_extended("<a"), None);
    }
}
