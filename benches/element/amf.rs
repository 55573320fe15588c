// SPDX-License-Identifier: MPL-2.0
//! The few AMF0 values that a publisher writes.

pub fn number(out: &mut Vec<u8>, value: f64) {
    out.push(0);
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn string(out: &mut Vec<u8>, value: &str) {
    out.push(2);
    utf8(out, value);
}

pub fn null(out: &mut Vec<u8>) {
    out.push(5);
}

pub fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(3);
    fill(&mut Object(out));
    out.extend_from_slice(&[0, 0, 9]);
}

pub struct Object<'a>(&'a mut Vec<u8>);

impl Object<'_> {
    pub fn number(&mut self, key: &str, value: f64) {
        utf8(self.0, key);
        number(self.0, value);
    }

    pub fn string(&mut self, key: &str, value: &str) {
        utf8(self.0, key);
        string(self.0, value);
    }
}

fn utf8(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}
