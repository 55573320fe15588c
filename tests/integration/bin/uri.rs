// SPDX-License-Identifier: MPL-2.0

//! The bin as the handler of its URIs.

use std::process::{Command, Output};
use std::sync::mpsc;

use gst::glib;
use gst::prelude::*;
use gstrtmp2server::Rtmp2ServerBin;
use rcgen::generate_simple_self_signed;

use support::clients::{FFMPEG, NEW_FFMPEG, publish};
use support::launch::Launch;
use support::media::{SMALL_VIDEO, TONE, made_by, small};
use support::{PATIENCE, init};

fn make_from_uri(uri: &str) -> Result<gst::Element, glib::Error> {
    init();
    gst::Element::make_from_uri(gst::URIType::Src, uri, None)
}

#[test]
fn the_bin_is_created_from_its_uris() {
    let uri = "rtmpserver://127.0.0.1:1234/live/key?latency=50&publisher-policy=reject";
    let bin = make_from_uri(uri).unwrap();
    assert!(bin.is::<Rtmp2ServerBin>());
    assert_eq!(bin.property::<String>("host"), "127.0.0.1");
    assert_eq!(bin.property::<u32>("port"), 1234);
    assert_eq!(bin.property::<String>("application"), "live");
    assert_eq!(bin.property::<String>("stream-key"), "key");
    assert_eq!(bin.property::<u32>("latency"), 50);
    let handler = bin.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    assert_eq!(handler.uri().unwrap(), uri);
    assert_eq!(handler.protocols(), ["rtmpserver", "rtmpsserver"]);
    // A URI that no longer matches the properties loses its query.
    bin.set_property("port", 1235u32);
    assert_eq!(
        handler.uri().unwrap(),
        "rtmpserver://127.0.0.1:1235/live/key"
    );
    assert!(
        make_from_uri("rtmpsserver://[::1]:0")
            .unwrap()
            .is::<Rtmp2ServerBin>()
    );
}

#[test]
fn a_uri_is_applied_completely_or_not_at_all() {
    let bin = make_from_uri("rtmpserver://127.0.0.1:0/live").unwrap();
    let handler = bin.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    for query in ["latency=1&nonsense=1", "password=x", "latency=x", "port=1"] {
        let error = handler.set_uri(&format!("rtmpserver://0.0.0.0:9/other?{query}"));
        let error = error.unwrap_err();
        assert!(error.matches(gst::URIError::BadReference), "{error}");
    }
    assert_eq!(handler.uri().unwrap(), "rtmpserver://127.0.0.1:0/live");
    assert_eq!(bin.property::<u32>("latency"), 200);
    bin.set_state(gst::State::Paused).unwrap();
    let error = handler
        .set_uri("rtmpserver://127.0.0.1:0/other")
        .unwrap_err();
    assert!(error.matches(gst::URIError::BadState), "{error}");
    bin.set_state(gst::State::Null).unwrap();
}

/// A property that one URI sets does not affect the next one.
#[test]
fn a_new_uri_resets_the_properties_of_the_last_one() {
    let bin = make_from_uri(
        "rtmpserver://127.0.0.1:0/live?latency=50&username=a&keep-listening=true\
         &allowed-addresses=%3C192.0.2.0/24%3E",
    )
    .unwrap();
    bin.set_property("max-clients", 7u32);
    let handler = bin.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    handler
        .set_uri("rtmpserver://127.0.0.1:0/live?bad=1")
        .unwrap_err();
    assert_eq!(bin.property::<u32>("latency"), 50);
    handler
        .set_uri("rtmpserver://127.0.0.1:0/live?keep-listening=true")
        .unwrap();
    assert_eq!(bin.property::<u32>("latency"), 200);
    assert_eq!(bin.property::<Option<String>>("username"), None);
    assert!(bin.property::<Vec<String>>("allowed-addresses").is_empty());
    assert!(bin.property::<bool>("keep-listening"));
    // Properties that the application has set stay.
    assert_eq!(bin.property::<u32>("max-clients"), 7);
}

/// Publishes to a player of the URI and returns the number of buffers rendered by its two sinks.
#[track_caller]
fn play_and_count(
    pipeline: &gst::Element,
    player: &gst::Element,
    sinks: &[gst::Element],
) -> Vec<u64> {
    play_from_and_count("rtmp://127.0.0.1", pipeline, player, sinks)
}

/// The same with another scheme and host, which may have a user.
#[track_caller]
fn play_from_and_count(
    host: &str,
    pipeline: &gst::Element,
    player: &gst::Element,
    sinks: &[gst::Element],
) -> Vec<u64> {
    let (port, ports) = mpsc::channel();
    player.connect("source-setup", false, move |arguments| {
        let bin: gst::Element = arguments[1].get().unwrap();
        let port = port.clone();
        bin.connect_notify(Some("current-port"), move |bin, _| {
            let _ = port.send(bin.property::<u32>("current-port"));
        });
        None
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let port = ports.recv_timeout(PATIENCE).unwrap();
    let url = format!("{host}:{port}/live/key");
    publish(FFMPEG, &small(2), true, &url).succeed();
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.bus().unwrap();
    let message = bus
        .timed_pop_filtered(patience, &kinds)
        .expect("the stream ends");
    let counts = sinks.iter().map(|sink| {
        let stats: gst::Structure = sink.property("stats");
        stats.get::<u64>("rendered").unwrap()
    });
    let counts = counts.collect();
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    counts
}

/// Asserts that everything was rendered. The sinks drop no late buffers, since lateness depends on
/// the machine.
#[track_caller]
fn assert_all_rendered(counts: &[u64], player: &str) {
    assert_eq!(counts[0], 60, "{player}");
    assert!(counts[1] > 80, "{player}: {}", counts[1]);
}

fn sink() -> gst::Element {
    let sink = gst::ElementFactory::make("fakesink");
    sink.property("sync", true).build().unwrap()
}

const URI: &str = "rtmpserver://127.0.0.1:0/live/key";

#[test]
fn playbins_play_the_uri() {
    init();
    for factory in ["playbin3", "playbin"] {
        let sinks = [sink(), sink()];
        let player = gst::ElementFactory::make(factory)
            .property("uri", URI)
            .property("video-sink", &sinks[0])
            .property("audio-sink", &sinks[1])
            .build()
            .unwrap();
        assert_all_rendered(&play_and_count(&player, &player, &sinks), factory);
    }
}

#[test]
fn uridecodebins_decode_the_uri() {
    init();
    for factory in ["uridecodebin3", "uridecodebin"] {
        let text = format!(
            "{factory} name=player uri={URI} player. ! video/x-raw ! fakesink name=v sync=true \
             player. ! audio/x-raw ! fakesink name=a sync=true"
        );
        let pipeline = gst::parse::launch(&text).unwrap();
        let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
        let [player, video, audio] = ["player", "v", "a"].map(|name| bin.by_name(name).unwrap());
        assert_all_rendered(
            &play_and_count(&pipeline, &player, &[video, audio]),
            factory,
        );
    }
}

fn play(options: &str, uri: &str) -> Launch {
    let arguments =
        format!("--no-interactive --videosink=fakesink --audiosink=fakesink {options} {uri}");
    Launch::start_program("gst-play-1.0", &arguments)
}

/// Codecs that only Enhanced RTMP has, with a track that no sink plays.
#[test]
fn several_tracks_of_enhanced_codecs_are_played() {
    let arguments = format!(
        "{SMALL_VIDEO} {TONE} -f lavfi -i sine=frequency=880 -t 2 -map 0 -map 1 -map 2 \
         -pix_fmt yuv420p -c:v libx265 -preset ultrafast -x265-params log-level=none \
         -c:a:0 libopus -c:a:1 aac -f flv"
    );
    let file = made_by(&*NEW_FFMPEG, "hevc-opus-aac.flv", &arguments);
    for options in ["", "--use-playbin3"] {
        let mut player = play(options, URI);
        let url = format!("rtmp://127.0.0.1:{}/live/key", player.port());
        publish(&*NEW_FFMPEG, &file, true, &url).succeed();
        let (status, _) = player.wait();
        let output = player.output();
        assert!(status.success() && !output.contains("ERROR"), "{output}");
        assert!(output.contains("Reached end of play list"), "{output}");
        for caps in ["video/x-raw", "video/x-h265", "audio/x-opus"] {
            assert!(output.contains(caps), "{caps}: {output}");
        }
    }
}

#[test]
fn gst_play_plays_the_uri() {
    for options in ["", "--use-playbin3"] {
        let mut player = play(options, URI);
        let url = format!("rtmp://127.0.0.1:{}/live/key", player.port());
        publish(FFMPEG, &small(2), true, &url).succeed();
        let (status, _) = player.wait();
        let output = player.output();
        assert!(status.success(), "{output}");
        assert!(!output.contains("ERROR"), "{output}");
        assert!(output.contains("Reached end of play list"), "{output}");
        for caps in ["video/x-raw", "audio/x-raw"] {
            assert!(output.contains(caps), "{caps}: {output}");
        }
    }
}

/// Creates a certificate and its key, signed by the authority in the folder that TEST_CA names, if
/// any: publishers that verify certificates trust it.
fn certificate() -> (tempfile::TempDir, [String; 2]) {
    let folder = tempfile::tempdir().unwrap();
    if let Ok(authority) = std::env::var("TEST_CA") {
        let status = Command::new("openssl")
            .args(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext".split(' '),
            )
            .args(["subjectAltName=IP:127.0.0.1", "-CA"])
            .args([format!("{authority}/ca.pem"), "-CAkey".to_owned()])
            .args([
                &format!("{authority}/ca-key.pem"),
                "-out",
                "certificate.pem",
            ])
            .args(["-keyout", "key.pem"])
            .current_dir(folder.path())
            .status();
        assert!(status.unwrap().success());
        let paths = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        return (folder, paths.map(|path| path.display().to_string()));
    }
    let certificate = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let paths = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&paths[0], certificate.cert.pem()).unwrap();
    std::fs::write(&paths[1], certificate.signing_key.serialize_pem()).unwrap();
    (folder, paths.map(|path| path.display().to_string()))
}

#[test]
fn properties_that_no_uri_may_carry_are_set_in_source_setup() {
    init();
    let (_folder, [certificate, key]) = certificate();
    let sinks = [sink(), sink()];
    let player = gst::ElementFactory::make("playbin3")
        .property(
            "uri",
            "rtmpsserver://127.0.0.1:0/live/key?authmod=adobe&username=camera",
        )
        .property("video-sink", &sinks[0])
        .property("audio-sink", &sinks[1])
        .build()
        .unwrap();
    player.connect("source-setup", false, move |arguments| {
        let bin: gst::Element = arguments[1].get().unwrap();
        bin.set_property("certificate-file", &certificate);
        bin.set_property("private-key-file", &key);
        bin.set_property("password", "secret");
        None
    });
    let host = "rtmps://camera:secret@127.0.0.1";
    assert_all_rendered(
        &play_from_and_count(host, &player, &player, &sinks),
        "playbin3",
    );
}

#[test]
fn gst_play_plays_the_uri_over_tls() {
    let (_folder, [certificate, key]) = certificate();
    let uri = format!(
        "rtmpsserver://127.0.0.1:0/live/key?certificate-file={certificate}&private-key-file={key}"
    );
    let mut player = play("--use-playbin3", &uri);
    let url = format!("rtmps://127.0.0.1:{}/live/key", player.port());
    let Output { status, stderr, .. } = publish(FFMPEG, &small(2), true, &url).wait();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let (status, _) = player.wait();
    let output = player.output();
    assert!(status.success() && !output.contains("ERROR"), "{output}");
    assert!(output.contains("Reached end of play list"), "{output}");
}

#[test]
fn a_missing_certificate_error_names_the_properties() {
    let bin = make_from_uri("rtmpsserver://127.0.0.1:0/live/key").unwrap();
    let handler = bin.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    assert!(handler.uri().unwrap().starts_with("rtmpsserver://"));
    let pipeline = gst::Pipeline::new();
    pipeline.add(&bin).unwrap();
    assert!(pipeline.set_state(gst::State::Playing).is_err());
    let kinds = [gst::MessageType::Error];
    let message = pipeline.bus().unwrap().pop_filtered(&kinds).unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    let text = error.error().to_string();
    for name in ["certificate-file", "private-key-file", "rtmps"] {
        assert!(text.contains(name), "{text}");
    }
}
