// SPDX-License-Identifier: MPL-2.0

//! Application and stream key, as clients divide a URL into them.

use support::clients::{FFMPEG, ffmpeg};
use support::media;
use support::raw::RawClient;
use support::recorder::Recorder;
use support::synthetic::stream;

use super::{delete_stream, send_tags};

/// Forms of the stream `key` of the application `live`.
const FORMS: [(&str, &str); 13] = [
    ("live", "key"),
    ("/live", "key"),
    ("live/", "/key"),
    ("live//", "key"),
    ("live/key", ""),
    ("live/key/", ""),
    ("", "live/key"),
    ("live?backup=1", "key"),
    ("live", "key?token=a=b:c"),
    ("live/key?token=a", "b"),
    ("live/_definst_", "key"),
    ("live/_definst_/key", ""),
    ("live", "rtmp://127.0.0.1:1935/live/key"),
];

#[test]
fn every_form_of_a_route_reaches_it() {
    for (application, stream_key) in FORMS {
        let recorder = Recorder::start("application=live stream-key=key");
        let mut client = RawClient::publish(recorder.port(), application, stream_key);
        let stats = recorder.stats();
        let field = |name| stats.get::<String>(name).unwrap();
        let names = (field("application"), field("stream-key"));
        assert_eq!(
            names,
            ("live".into(), "key".into()),
            "{application}, {stream_key}"
        );
        let tags = stream(0, 3);
        send_tags(&mut client, &tags);
        delete_stream(&mut client);
        assert_eq!(recorder.finish(), tags, "{application}, {stream_key}");
    }
}

#[test]
fn ffmpeg_urls_reach_their_route() {
    let file = media::small(1);
    let expected = support::flv::read_file(&file);
    for (route, path) in [
        ("application=live stream-key=key", "live/key"),
        ("application=live stream-key=key", "live//key"),
        ("application=live stream-key=key", "live/key/"),
        ("application=live stream-key=key", "live?backup=1/key"),
        ("application=live stream-key=key", "live/key?token=a:b/c"),
        ("application=live/inst stream-key=a/b", "live/inst/a/b"),
        ("application=live stream-key=film.mp4", "live/film.mp4"),
        ("application=live", "live"),
        ("location=rtmp://127.0.0.1:0/live/key", "live/key"),
    ] {
        let recorder = Recorder::start(route);
        let input = file.display();
        let url = recorder.url(path);
        ffmpeg(FFMPEG, &format!("-i {input} -c copy -f flv {url}")).succeed();
        support::flv::assert_same_media(&expected, &recorder.finish());
    }
}
