// SPDX-License-Identifier: MPL-2.0

//! Takes RTMP publishers, cleans what they send, and serves it as HLS.

mod catalog;

fn main() {
    let (catalog, _) = catalog::Catalog::new();
    println!("{}", catalog.streams().len());
}
