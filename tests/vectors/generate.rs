// SPDX-License-Identifier: MPL-2.0

//! Writes the conformance vectors in tests/data/enhanced-flv.
//!
//! ```sh
//! cargo run --release --example vectors
//! ```

#[path = "mod.rs"]
mod vectors;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/enhanced-flv");
    std::fs::create_dir_all(&folder)?;
    for vector in vectors::all() {
        std::fs::write(folder.join(vector.file_name()), &vector.bytes)?;
    }
    let description = serde_json::to_string_pretty(&vectors::description())?;
    std::fs::write(folder.join("vectors.json"), description + "\n")
}
