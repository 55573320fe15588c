// SPDX-License-Identifier: MPL-2.0

//! Media to publish, made once and kept in the target folder.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::clients::{FFMPEG, ffmpeg};
use super::launch::build_folder;

/// The media folder of the target folder, which the tests of all packages share.
fn media_folder() -> PathBuf {
    build_folder().with_file_name("tmp").join("media")
}

/// Returns the file `name`, made by ffmpeg with these arguments if it is not there yet.
pub fn made_by(program: impl AsRef<std::ffi::OsStr>, name: &str, arguments: &str) -> PathBuf {
    // Tests of one process must not make one file twice at a time.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(|e| e.into_inner());
    let folder = media_folder();
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    if !path.exists() {
        // Complete or absent, also for other processes and after an interrupted run.
        let own = tempfile::Builder::new().suffix(name).tempfile_in(&folder);
        let own = own.unwrap().into_temp_path();
        ffmpeg(program, &format!("{arguments} {}", own.display())).succeed();
        own.persist(&path).unwrap();
    }
    path
}

pub const SMALL_VIDEO: &str = "-f lavfi -i testsrc=size=320x240:rate=30";
pub const TONE: &str = "-f lavfi -i sine=frequency=440:sample_rate=48000";

/// 1080p30 at 6 Mbit/s with B-frames and AAC, 20 s.
pub fn full_hd() -> PathBuf {
    let arguments = format!(
        "-f lavfi -i testsrc2=size=1920x1080:rate=30 {TONE} -t 20 -c:v libx264 -preset ultrafast \
         -bf 2 -g 60 -b:v 6M -minrate 6M -maxrate 6M -bufsize 6M -nal-hrd cbr -c:a aac -b:a 128k -f flv"
    );
    made_by(FFMPEG, "full-hd.flv", &arguments)
}

/// 320x240 H.264 and AAC, so many seconds.
pub fn small(seconds: u32) -> PathBuf {
    let arguments = format!(
        "{SMALL_VIDEO} {TONE} -t {seconds} -c:v libx264 -preset ultrafast -g 30 -c:a aac -f flv"
    );
    made_by(FFMPEG, &format!("small-{seconds}.flv"), &arguments)
}

/// As [`full_hd`], 40 s: more than the kernel keeps of a connection.
pub fn long_full_hd() -> PathBuf {
    let short = full_hd();
    let arguments = format!(
        "-stream_loop 1 -i {} -map 0 -c copy -f flv",
        short.display()
    );
    made_by(FFMPEG, "long-full-hd.flv", &arguments)
}

/// Returns the file that ffmpeg writes with the arguments of [`super::clients::publish`].
pub fn copy(program: impl AsRef<std::ffi::OsStr>, file: &Path) -> PathBuf {
    let program = program.as_ref();
    // Each ffmpeg has its own way to write FLV.
    let writer = if program == FFMPEG { "old" } else { "new" };
    let name = file.file_stem().unwrap().to_str().unwrap();
    let name = format!("{name}-{writer}-copy.flv");
    let arguments = format!("-i {} -map 0 -c copy -f flv", file.display());
    made_by(program, &name, &arguments)
}
