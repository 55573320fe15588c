// SPDX-License-Identifier: MPL-2.0

use std::path::Path;

use super::*;

fn planned(text: &str) -> Result<Vec<Plan>, Vec<String>> {
    let config = config::parse("cameras.json", text).unwrap_or_else(|error| panic!("{error}"));
    plans(Path::new("/here"), &config).map_err(|problems| {
        let line = |problem: &Problem| format!("{}: {}", problem.place, problem.what);
        problems.iter().map(line).collect()
    })
}

/// Returns the problem of a configuration, which must have exactly one.
fn problem(text: &str) -> String {
    let problems = planned(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

const EIGHT: &str = r#"{
  "variables": {"server": "first.example"},
  "source": {"rtmp": {"application": "cameras", "stream_key": "{camera_id}-{stream_name}"}},
  "url_template": "rtmp://{server}/live/cam{camera_id}_{stream_name}",
  "fallback_urls": ["rtmp://second.example/live/cam{camera_id}_{stream_name}"],
  "retry": {"max_delay_ms": 30000},
  "cameras": [
    {"id": "1", "streams": [{"name": "main"}, {"name": "sub", "retry": {"timeout_ms": 900}}]},
    {"id": "2", "variables": {"server": "third.example"}, "fallback_urls": [], "retry": {"max_delay_ms": 20000},
     "streams": [{"name": "main"}]},
    {"id": "3", "source": {"file": {"path": "clips/{camera_id}.flv", "loop": true}},
     "url_template": "rtmps://fourth.example/{camera_id}/{stream_name}",
     "streams": [{"name": "main"},
                 {"name": "sub", "source": {"test": {}}, "urls": ["rtmp://fifth.example/a/b", "rtmp://sixth.example/a/b"]}]}
  ]
}"#;

#[test]
fn inner_values_replace_outer_ones() {
    let plans = planned(EIGHT).unwrap();
    let names: Vec<String> = plans.iter().map(|plan| plan.name.to_string()).collect();
    assert_eq!(names, ["1/main", "1/sub", "2/main", "3/main", "3/sub"]);
    let urls: Vec<&[String]> = plans.iter().map(|plan| &plan.urls[..]).collect();
    assert_eq!(
        urls[0],
        [
            "rtmp://first.example/live/cam1_main",
            "rtmp://second.example/live/cam1_main"
        ]
    );
    assert_eq!(urls[2], ["rtmp://third.example/live/cam2_main"]);
    assert_eq!(
        urls[3],
        [
            "rtmps://fourth.example/3/main",
            "rtmp://second.example/live/cam3_main"
        ]
    );
    assert_eq!(
        urls[4],
        [
            "rtmp://fifth.example/a/b",
            "rtmp://sixth.example/a/b",
            "rtmp://second.example/live/cam3_sub"
        ]
    );
    let is_route = |source: &Source| {
        matches!(source, Source::Rtmp { host, port: 1935, application, stream_key }
            if host == "::" && application == "cameras" && stream_key == "1-sub")
    };
    assert!(is_route(&plans[1].source) && !is_route(&plans[0].source));
    assert!(
        matches!(&plans[3].source, Source::File { path, is_loop: true } if path == Path::new("/here/clips/3.flv"))
    );
    assert!(matches!(&plans[4].source, Source::Test(test) if *test == config::Test::default()));
    let times = |plan: &Plan| (plan.retry.max_delay_ms, plan.retry.timeout_ms);
    assert_eq!(times(&plans[0]), (30_000, 5000));
    assert_eq!(times(&plans[1]), (30_000, 900));
    assert_eq!(times(&plans[2]), (20_000, 5000));
}

/// Returns a configuration with these streams of one camera.
fn with_streams(streams: &str) -> String {
    format!(r#"{{"cameras": [{{"id": "1", "streams": [{streams}]}}]}}"#)
}

const GOOD: &str = r#""source": {"test": {}}, "urls": ["rtmp://h/l/a"]"#;

#[test]
fn missing_values_are_reported_with_advice() {
    assert_eq!(
        problem(&with_streams(r#"{"name": "main", "source": {"test": {}}}"#)),
        "cameras[0].streams[0]: it has no server: set urls here, or url_template at its camera or for all of them"
    );
    assert_eq!(
        problem(&with_streams(
            r#"{"name": "main", "urls": ["rtmp://h/l/a"]}"#
        )),
        "cameras[0].streams[0]: it has no source: set source here, at its camera, or for all of them"
    );
    assert!(
        problem(r#"{"cameras": [{"id": "1", "streams": []}]}"#).starts_with("cameras[0].streams: ")
    );
}

#[test]
fn duplicates_are_reported_with_both_places() {
    let camera = |id: &str, url: &str| {
        format!(
            r#"{{"id": "{id}", "streams": [{{"name": "main", "source": {{"test": {{}}}}, "urls": ["{url}"]}}]}}"#
        )
    };
    let two = |one: String, other: String| format!(r#"{{"cameras": [{one}, {other}]}}"#);
    let url = "rtmp://host/live/secret-key";
    let same_url = problem(&two(camera("1", url), camera("2", url)));
    assert!(
        same_url.starts_with("cameras[1].streams[0]: cameras[0].streams[0] has the same URL: "),
        "{same_url}"
    );
    assert!(!same_url.contains("secret"), "{same_url}");
    let same_id = planned(&two(camera("1", url), camera("1", "rtmp://h/l/b"))).unwrap_err();
    assert!(same_id[0].starts_with("cameras[1]: cameras[0] has the same id: "));
    let same_name = format!(
        r#"{{"name": "main", {GOOD}}}, {{"name": "main", "source": {{"test": {{}}}}, "urls": ["rtmp://h/l/b"]}}"#
    );
    assert!(problem(&with_streams(&same_name)).starts_with("cameras[0].streams[1]: "));
    let route = r#""source": {"rtmp": {"application": "a", "stream_key": "b"}}"#;
    let same_route = format!(
        r#"{{"name": "main", {route}, "urls": ["rtmp://h/l/a"]}}, {{"name": "sub", {route}, "urls": ["rtmp://h/l/b"]}}"#
    );
    let same_route = problem(&with_streams(&same_route));
    assert!(
        same_route
            .starts_with("cameras[0].streams[1]: cameras[0].streams[0] has the same rtmp source: "),
        "{same_route}"
    );
}

#[test]
fn a_fallback_is_another_server() {
    let secret = "rtmp://me:word@host/live/secret-key";
    let own = |urls: &str| {
        with_streams(&format!(
            r#"{{"name": "main", "source": {{"test": {{}}}}, {urls}}}"#
        ))
    };
    let stream = "cameras[0].streams[0]";
    for (urls, place, first) in [
        (
            format!(r#""urls": ["{secret}"], "fallback_urls": ["rtmp://h/l/a", "{secret}"]"#),
            "fallback_urls[1]",
            "urls[0]",
        ),
        (
            format!(r#""urls": ["rtmp://h/l/a"], "fallback_urls": ["{secret}", "{secret}"]"#),
            "fallback_urls[1]",
            "fallback_urls[0]",
        ),
        (
            format!(r#""urls": ["{secret}", "{secret}"]"#),
            "urls[1]",
            "urls[0]",
        ),
    ] {
        assert_eq!(
            problem(&own(&urls)),
            format!("{stream}.{place}: it makes the same URL as {stream}.{first}: remove it")
        );
    }
    // A shared value is reported once.
    let text = EIGHT
        .replace("{server}", "second.example")
        .replace(r#""fallback_urls": [], "#, "");
    assert_eq!(
        problem(&text),
        format!("fallback_urls[0], for {stream}: it makes the same URL as url_template: remove it")
    );
}

#[test]
fn the_listen_host_must_be_a_host() {
    let with_host = |host: &str| {
        let listen = format!(r#"{{"listen": {{"host": "{host}"}}, "#);
        with_streams(&format!(r#"{{"name": "main", {GOOD}}}"#)).replacen('{', &listen, 1)
    };
    for host in [
        "not a host",
        "[::1]",
        "::1%",
        "a..b",
        ".",
        "host:1935",
        "300.1.1.1",
        "a/b",
        "%61",
    ] {
        assert_eq!(
            problem(&with_host(host)),
            "listen.host: it is neither an IP address nor a host name",
            "{host}"
        );
    }
    for host in [
        "0.0.0.0",
        "::",
        "::1",
        "fe80::1%eth0",
        "localhost",
        "gate-1.example.",
    ] {
        assert!(planned(&with_host(host)).is_ok(), "{host}");
    }
}

#[test]
fn a_shared_wrong_template_is_reported_once() {
    let text = EIGHT.replace("/live/cam{camera_id}_", "/live/cam{camera}_");
    let problems = planned(&text).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with(
            "url_template, for cameras[0].streams[0]: the variable \"camera\" is unknown: "
        ),
        "{problems:?}"
    );
    assert!(problems[1].starts_with("fallback_urls[0], for cameras[0].streams[0]: "));
    let own = with_streams(
        r#"{"name": "main", "source": {"test": {}}, "urls": ["rtmp://h/l/a", "h/l/b"]}"#,
    );
    assert!(
        problem(&own)
            .starts_with("cameras[0].streams[0].urls[1]: it is not the URL of an RTMP server: ")
    );
}

#[test]
fn values_out_of_range_are_reported_with_their_places() {
    for (streams, place) in [
        (
            format!(r#"{{"name": "a/b", {GOOD}}}"#),
            "cameras[0].streams[0].name: ",
        ),
        (
            format!(r#"{{"name": "a", "retry": {{"timeout_ms": 1}}, {GOOD}}}"#),
            "cameras[0].streams[0].retry.timeout_ms: ",
        ),
        (
            format!(r#"{{"name": "a", "retry": {{"max_delay_ms": 500}}, {GOOD}}}"#),
            "cameras[0].streams[0].retry: max_delay_ms is less than",
        ),
        (
            format!(r#"{{"name": "a", "variables": {{"camera_id": "7"}}, {GOOD}}}"#),
            "cameras[0].streams[0].variables.camera_id: ",
        ),
        (
            format!(r#"{{"name": "a", "variables": {{"site": "{{x}}"}}, {GOOD}}}"#),
            "cameras[0].streams[0].variables.site: ",
        ),
        (
            r#"{"name": "a", "source": {"test": {"width": 321}}, "urls": ["rtmp://h/l/a"]}"#
                .to_owned(),
            "cameras[0].streams[0].source.test.width: ",
        ),
    ] {
        let problem = problem(&with_streams(&streams));
        assert!(problem.starts_with(place), "{problem}");
    }
}

#[test]
fn the_example_file_is_valid() {
    let plans = planned(include_str!("../multicam.json")).unwrap();
    let cameras: std::collections::HashSet<_> =
        plans.iter().map(|plan| &plan.name.camera).collect();
    assert_eq!(cameras.len(), 8);
}

#[test]
fn the_example_in_the_readme_is_valid() {
    let readme = include_str!("../README.md");
    let blocks = readme.split("```json\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split("```").next());
    let text = blocks.find(|text| text.contains("\"cameras\"")).unwrap();
    assert_eq!(planned(text).unwrap().len(), 3);
}
