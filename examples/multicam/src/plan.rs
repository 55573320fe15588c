// SPDX-License-Identifier: MPL-2.0

//! The meaning of a configuration: source and destinations of each stream, complete. Streams with
//! equal plans are equal.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use url::Host;

use super::config::{self, CameraConfig, Config, ConfigError, Problem, Retry, Variables};
use super::template::{self, TemplateError};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    pub camera: String,
    pub stream: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.camera, self.stream)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Plan {
    pub name: Name,
    pub source: Source,
    /// The best server first.
    pub urls: Vec<String>,
    pub retry: Policy,
}

impl fmt::Debug for Plan {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    Rtmp {
        host: String,
        port: u16,
        application: String,
        stream_key: String,
    },
    File {
        path: PathBuf,
        is_loop: bool,
    },
    Test(config::Test),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub initial_delay_ms: u32,
    pub max_delay_ms: u32,
    pub max_attempts: u32,
    pub return_to_primary_ms: u32,
    pub timeout_ms: u32,
}

/// For a program without an operator: it never gives up, and returns to the best server.
const POLICY: Policy = Policy {
    initial_delay_ms: 1000,
    max_delay_ms: 60_000,
    max_attempts: 0,
    return_to_primary_ms: 60_000,
    timeout_ms: 5000,
};

/// The least that rtmp2fallbacksink accepts.
const MIN_MS: u32 = 10;

const MAX_NAME: usize = 64;

/// Returns the plans of a file, in its order.
pub fn load(path: &Path) -> Result<Vec<Plan>, ConfigError> {
    let file = path.display().to_string();
    let config = config::parse(&file, &config::read(path)?)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    plans(folder, &config).map_err(|problems| ConfigError::Meaning { file, problems })
}

/// Relative paths of files start at `folder`.
pub fn plans(folder: &Path, config: &Config) -> Result<Vec<Plan>, Vec<Problem>> {
    let mut planner = Planner {
        folder,
        config,
        problems: Vec::new(),
        places: HashMap::new(),
    };
    planner.check_outside();
    let mut plans = Vec::new();
    for (index, camera) in config.cameras.iter().enumerate() {
        planner.add_camera(&format!("cameras[{index}]"), camera, &mut plans);
    }
    if planner.problems.is_empty() {
        Ok(plans)
    } else {
        Err(planner.problems)
    }
}

struct Planner<'a> {
    folder: &'a Path,
    config: &'a Config,
    problems: Vec<Problem>,
    /// The places of values that must be unique: ids, names, routes and URLs, each with its kind.
    places: HashMap<(&'static str, String), String>,
}

impl Planner<'_> {
    fn add_problem(&mut self, place: impl Into<String>, what: impl Into<String>) {
        let (place, what) = (place.into(), what.into());
        self.problems.push(Problem { place, what });
    }

    fn check_outside(&mut self) {
        self.check_variables("variables", &self.config.variables);
        self.check_retry("retry", &self.config.retry);
        let host = self.config.listen.host.as_str();
        if host.is_empty() {
            self.add_problem(
                "listen.host",
                "it is empty: \"::\" stands for all addresses",
            );
        } else if !is_host(host) {
            self.add_problem("listen.host", "it is neither an IP address nor a host name");
        }
    }

    fn check_variables(&mut self, place: &str, variables: &Variables) {
        for (name, value) in variables {
            let place = format!("{place}.{name}");
            if matches!(name.as_str(), "camera_id" | "stream_name") {
                self.add_problem(place, "it is set already: it is the id or the name below");
            } else if value.is_empty() || value.contains(['{', '}']) {
                self.add_problem(place, "give it a value, without braces");
            }
        }
    }

    fn check_retry(&mut self, place: &str, retry: &Retry) {
        let delays = [
            ("initial_delay_ms", retry.initial_delay_ms),
            ("max_delay_ms", retry.max_delay_ms),
            ("timeout_ms", retry.timeout_ms),
        ];
        for (key, value) in delays {
            if value.is_some_and(|value| value < MIN_MS) {
                let what = format!("it must be {MIN_MS} at least");
                self.add_problem(format!("{place}.{key}"), what);
            }
        }
    }

    /// Checks a name, which becomes part of labels, lines and URLs.
    fn check_name(&mut self, place: String, name: &str) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
            let what = format!("use 1 to {MAX_NAME} letters, digits, '-', '_' and '.'");
            self.add_problem(place, what);
        }
    }

    /// Reports a value that is there twice, with the place of the first one before `what`.
    fn check_once(&mut self, kind: &'static str, value: String, place: &str, what: &str) {
        let key = (kind, value);
        match self.places.get(&key) {
            Some(first) if first != place => {
                let what = format!("{first} has the same {kind}: {what}");
                self.add_problem(place, what);
            }
            Some(_) => {}
            None => {
                self.places.insert(key, place.to_owned());
            }
        }
    }

    fn add_camera(&mut self, place: &str, camera: &CameraConfig, plans: &mut Vec<Plan>) {
        self.check_name(format!("{place}.id"), &camera.id);
        self.check_once("id", camera.id.clone(), place, "give each camera its own");
        self.check_variables(&format!("{place}.variables"), &camera.variables);
        self.check_retry(&format!("{place}.retry"), &camera.retry);
        if camera.streams.is_empty() {
            self.add_problem(
                format!("{place}.streams"),
                "it is empty: add {\"name\": \"main\"}",
            );
        }
        for (index, stream) in camera.streams.iter().enumerate() {
            let place = format!("{place}.streams[{index}]");
            plans.extend(self.plan(&place, camera, stream));
        }
    }

    fn plan(
        &mut self,
        place: &str,
        camera: &CameraConfig,
        stream: &config::StreamConfig,
    ) -> Option<Plan> {
        self.check_name(format!("{place}.name"), &stream.name);
        let name = Name {
            camera: camera.id.clone(),
            stream: stream.name.clone(),
        };
        let both = name.to_string();
        self.check_once("id and name", both, place, "give each stream its own name");
        self.check_variables(&format!("{place}.variables"), &stream.variables);
        self.check_retry(&format!("{place}.retry"), &stream.retry);
        let scope = Scope::of(self.config, place, camera, stream);
        let source = self.source(&scope);
        let urls = self.urls(&scope);
        let retry = policy(&[&stream.retry, &camera.retry, &self.config.retry]);
        if retry.max_delay_ms < retry.initial_delay_ms {
            self.add_problem(
                format!("{place}.retry"),
                "max_delay_ms is less than initial_delay_ms",
            );
        }
        Some(Plan {
            name,
            source: source?,
            urls: urls?,
            retry,
        })
    }

    fn source(&mut self, scope: &Scope) -> Option<Source> {
        let Some((place, source)) = &scope.source else {
            self.add_problem(
                scope.place,
                "it has no source: set source here, at its camera, or for all of them",
            );
            return None;
        };
        match source {
            config::SourceConfig::Rtmp(rtmp) => {
                let place = format!("{place}.rtmp");
                let application =
                    self.filled(scope, &format!("{place}.application"), &rtmp.application);
                let stream_key =
                    self.filled(scope, &format!("{place}.stream_key"), &rtmp.stream_key);
                let (application, stream_key) = (application?, stream_key?);
                let path = format!("{application}/{stream_key}");
                let what = "put {camera_id} and {stream_name} into its stream_key";
                self.check_once("rtmp source", path, scope.place, what);
                let listen = &self.config.listen;
                Some(Source::Rtmp {
                    host: listen.host.clone(),
                    port: listen.port,
                    application,
                    stream_key,
                })
            }
            config::SourceConfig::File(file) => {
                let path = self.filled(scope, &format!("{place}.file.path"), &file.path)?;
                Some(Source::File {
                    path: self.folder.join(path),
                    is_loop: file.is_loop,
                })
            }
            config::SourceConfig::Test(test) => {
                self.check_test(&format!("{place}.test"), test);
                Some(Source::Test(test.clone()))
            }
        }
    }

    fn check_test(&mut self, place: &str, test: &config::Test) {
        let ranges = [
            ("width", test.width, 16..=8192),
            ("height", test.height, 16..=8192),
            ("framerate", test.framerate, 1..=240),
            ("bitrate_kbps", test.bitrate_kbps, 1..=1_000_000),
            (
                "keyframe_interval_ms",
                test.keyframe_interval_ms,
                1..=600_000,
            ),
        ];
        for (key, value, range) in ranges {
            if !range.contains(&value) {
                let what = format!("it must be from {} to {}", range.start(), range.end());
                self.add_once(format!("{place}.{key}"), what);
            }
        }
        for (key, value) in [("width", test.width), ("height", test.height)] {
            if value % 2 != 0 {
                self.add_once(format!("{place}.{key}"), "it must be even".to_owned());
            }
        }
    }

    fn urls(&mut self, scope: &Scope) -> Option<Vec<String>> {
        if scope.urls.is_empty() {
            self.add_problem(
                scope.place,
                "it has no server: set urls here, or url_template at its camera or for all of them",
            );
            return None;
        }
        let mut urls = Vec::new();
        for (place, text) in &scope.urls {
            let url = template::url(text, &scope.variables);
            urls.push(self.usable(scope, place, url));
        }
        let urls: Option<Vec<String>> = urls.into_iter().collect();
        self.check_fallbacks(scope, urls.as_deref().unwrap_or_default());
        for url in urls.iter().flatten() {
            let what = "put {camera_id} and {stream_name} into it, or one would replace the other";
            self.check_once("URL", url.clone(), scope.place, what);
        }
        urls
    }

    /// Each URL of a stream must be another one: it is useless to fall back to the server that just
    /// failed.
    fn check_fallbacks(&mut self, scope: &Scope, urls: &[String]) {
        for (index, url) in urls.iter().enumerate() {
            if let Some(first) = urls[..index].iter().position(|first| first == url) {
                let place = scope.placed(&scope.urls[index].0);
                let first = &scope.urls[first].0;
                let what = format!("it makes the same URL as {first}: remove it");
                self.add_once(place, what);
            }
        }
    }

    fn filled(&mut self, scope: &Scope, place: &str, text: &str) -> Option<String> {
        let filled = template::fill(text, &scope.variables);
        self.usable(scope, place, filled)
    }

    fn usable(
        &mut self,
        scope: &Scope,
        place: &str,
        text: Result<String, TemplateError>,
    ) -> Option<String> {
        text.map_err(|error| self.add_once(scope.placed(place), error.to_string()))
            .ok()
    }

    /// A value that many streams share is one problem, reported at the first of them.
    fn add_once(&mut self, place: String, what: String) {
        let written = |place: &str| place.split(',').next().map(str::to_owned);
        let is_same =
            |problem: &Problem| problem.what == what && written(&problem.place) == written(&place);
        if !self.problems.iter().any(is_same) {
            self.add_problem(place, what);
        }
    }
}

/// The inherited values of a stream, with their places.
struct Scope<'a> {
    place: &'a str,
    variables: Variables,
    source: Option<(String, &'a config::SourceConfig)>,
    urls: Vec<(String, &'a str)>,
}

impl<'a> Scope<'a> {
    fn of(
        config: &'a Config,
        place: &'a str,
        camera: &'a CameraConfig,
        stream: &'a config::StreamConfig,
    ) -> Self {
        // `cameras[2]` of `cameras[2].streams[0]`.
        let outer = place.split('.').next().unwrap_or_default();
        let at = |outer: &str, key: &str| match outer {
            "" => key.to_owned(),
            outer => format!("{outer}.{key}"),
        };
        let mut variables = config.variables.clone();
        variables.extend(camera.variables.clone());
        variables.extend(stream.variables.clone());
        variables.insert("camera_id".to_owned(), camera.id.clone());
        variables.insert("stream_name".to_owned(), stream.name.clone());
        let sources = [
            (place, &stream.source),
            (outer, &camera.source),
            ("", &config.source),
        ];
        let source = sources
            .into_iter()
            .find_map(|(outer, source)| Some((at(outer, "source"), source.as_ref()?)));
        let templates = [(outer, &camera.url_template), ("", &config.url_template)];
        let template = templates
            .into_iter()
            .find_map(|(outer, text)| Some((at(outer, "url_template"), text.as_deref()?)));
        let list = |outer: &str, key: &str, texts: &'a [String]| {
            let place = |index| at(outer, &format!("{key}[{index}]"));
            let texts = texts.iter().enumerate();
            texts
                .map(|(index, text)| (place(index), text.as_str()))
                .collect::<Vec<_>>()
        };
        let mut urls = match &stream.urls {
            Some(urls) => list(place, "urls", urls),
            None => template.into_iter().collect(),
        };
        let fallbacks = [
            (place, &stream.fallback_urls),
            (outer, &camera.fallback_urls),
            ("", &config.fallback_urls),
        ];
        let fallbacks = fallbacks
            .into_iter()
            .find_map(|(outer, urls)| Some((outer, urls.as_ref()?)));
        // Without a first URL there is nothing to fall back from.
        if let Some((outer, fallbacks)) = fallbacks.filter(|_| !urls.is_empty()) {
            urls.extend(list(outer, "fallback_urls", fallbacks));
        }
        Scope {
            place,
            variables,
            source,
            urls,
        }
    }

    /// Returns a place; where other streams share the value, with the stream.
    fn placed(&self, place: &str) -> String {
        match place.starts_with(self.place) {
            true => place.to_owned(),
            false => format!("{place}, for {}", self.place),
        }
    }
}

/// Accepts an IP address, that of IPv6 also with its interface, or a possible host name.
fn is_host(host: &str) -> bool {
    let (address, interface) = host.split_once('%').unwrap_or((host, "-"));
    if host.parse::<Ipv4Addr>().is_ok()
        || address.parse::<Ipv6Addr>().is_ok() && !interface.is_empty()
    {
        return true;
    }
    // `Host::parse` would decode percent encoding.
    let is_name = !host.contains('%') && matches!(Host::parse(host), Ok(Host::Domain(_)));
    let name = host.strip_suffix('.').unwrap_or(host);
    is_name && name.split('.').all(|label| !label.is_empty())
}

/// The innermost level comes first.
fn policy(levels: &[&Retry]) -> Policy {
    let first = |value: fn(&Retry) -> Option<u32>, default: u32| {
        let values = levels.iter().find_map(|retry| value(retry));
        values.unwrap_or(default)
    };
    Policy {
        initial_delay_ms: first(|retry| retry.initial_delay_ms, POLICY.initial_delay_ms),
        max_delay_ms: first(|retry| retry.max_delay_ms, POLICY.max_delay_ms),
        max_attempts: first(|retry| retry.max_attempts, POLICY.max_attempts),
        return_to_primary_ms: first(
            |retry| retry.return_to_primary_ms,
            POLICY.return_to_primary_ms,
        ),
        timeout_ms: first(|retry| retry.timeout_ms, POLICY.timeout_ms),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
