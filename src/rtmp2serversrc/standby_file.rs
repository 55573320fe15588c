// SPDX-License-Identifier: MPL-2.0

//! The file that plays in a loop while no media of a publisher comes.
//!
//! Lock order: the one lock in here is a leaf.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::eflvdemux::{FlvParser, Parsed};
use crate::feed::{Program, ProgramBuilder};
use crate::flv::FILE_HEADER;

/// Bytes that are read at a time.
const PIECE: usize = 256 * 1024;

/// A version of a file: its length and the time of its last change.
type Version = (u64, Option<SystemTime>);

/// Files in memory by their paths.
type Files = HashMap<PathBuf, (Version, Weak<Program>)>;

/// The files that elements of this process play now. Each is in memory once.
static FILES: LazyLock<Mutex<Files>> = LazyLock::new(Mutex::default);

/// Reads a file, unless it is in memory already. The error says what is wrong with it.
pub(super) fn load(path: &Path) -> Result<Arc<Program>, String> {
    let failed =
        |reason: String| format!("Can't use standby-location {}: {reason}", path.display());
    let mut file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is not a file".into()));
    }
    let version = (metadata.len(), metadata.modified().ok());
    let known = |files: &Files| {
        let (known, program) = files.get(path)?;
        program.upgrade().filter(|_| *known == version)
    };
    if let Some(program) = known(&FILES.lock()) {
        return Ok(program);
    }
    let program = Arc::new(read(&mut file).map_err(failed)?);
    let mut files = FILES.lock();
    // Another element may have read it in the meantime.
    if let Some(program) = known(&files) {
        return Ok(program);
    }
    files.retain(|_, (_, program)| program.strong_count() > 0);
    files.insert(path.to_owned(), (version, Arc::downgrade(&program)));
    Ok(program)
}

fn read(file: &mut impl Read) -> Result<Program, String> {
    let mut parser = FlvParser::default();
    let mut builder = ProgramBuilder::default();
    let mut is_start = true;
    let mut each = |parsed: Parsed<'_>| match parsed {
        Parsed::Tag { tag, .. } => builder.push(tag.kind, tag.timestamp, tag.body),
        _ => Ok(()),
    };
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let length = read.map_err(|error| error.to_string())?;
        if std::mem::take(&mut is_start) && !piece.starts_with(&FILE_HEADER[..4]) {
            return Err(
                "it is no FLV file: make one with ffmpeg -i FILE -f flv standby.flv".into(),
            );
        }
        if length == 0 {
            break;
        }
        let pushed = parser.push(gst::Buffer::from_mut_slice(piece), &mut each);
        pushed.map_err(|error| error.to_string())?;
    }
    let finished = parser.finish(&mut each);
    finished.map_err(|error| error.to_string())?;
    builder.finish().map_err(|error| error.to_string())
}
