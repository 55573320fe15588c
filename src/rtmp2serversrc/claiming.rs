// SPDX-License-Identifier: MPL-2.0

//! What an element has of the server while it runs: a route of its own, or one stream of another
//! element.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gst::prelude::*;

use super::settings::Settings;
use crate::server::{
    self, Claim, ClaimError, ClaimErrorKind, DrainControl, Observer, PublishPoint,
    PublishPointConfig, Stream, StreamClaim,
};

/// Where a stream comes from at the next start.
#[derive(Debug, Default)]
pub(super) enum Origin {
    /// The properties say it.
    #[default]
    Route,
    /// From who has given it, once.
    Stream {
        number: u32,
        given: Option<StreamClaim>,
    },
}

impl Origin {
    /// The number of a stream that was given.
    pub(super) fn number(&self) -> Option<u32> {
        match self {
            Origin::Route => None,
            Origin::Stream { number, .. } => Some(*number),
        }
    }

    /// What was given and has not started yet.
    pub(super) fn stream(&self) -> Option<Arc<Stream>> {
        match self {
            Origin::Stream { given, .. } => given.as_ref().map(|claim| claim.stream().clone()),
            Origin::Route => None,
        }
    }

    /// What was given, which is not to start any more.
    pub(super) fn detach(&mut self) -> Option<StreamClaim> {
        match self {
            Origin::Route => None,
            Origin::Stream { given, .. } => given.take(),
        }
    }

    /// The stream that was given, if it is not from a route.
    pub(super) fn take(&mut self) -> Result<Option<StreamClaim>, gst::ErrorMessage> {
        match self {
            Origin::Route => Ok(None),
            Origin::Stream { given, .. } => match given.take() {
                Some(claim) => Ok(Some(claim)),
                None => Err(gst::error_msg!(
                    gst::ResourceError::Busy,
                    ("The stream is over")
                )),
            },
        }
    }
}

/// What is held from start to stop.
#[derive(Debug)]
pub(super) enum Running {
    Route(Claim, Arc<Stream>),
    Stream(StreamClaim),
}

impl Running {
    pub(super) fn claim(
        settings: &Settings,
        config: PublishPointConfig,
    ) -> Result<Self, gst::ErrorMessage> {
        let stream = Arc::new(Stream::new(config));
        let claim = claim(settings, &PublishPoint::One(stream.clone()))?;
        Ok(Running::Route(claim, stream))
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        match self {
            Running::Route(_, stream) => stream,
            Running::Stream(claim) => claim.stream(),
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Running::Route(claim, _) => Some(claim.address()),
            Running::Stream(_) => None,
        }
    }

    pub(super) fn drain_control(&self) -> Option<DrainControl> {
        match self {
            Running::Route(claim, _) => Some(claim.drain_control()),
            Running::Stream(_) => None,
        }
    }
}

/// What the properties say of who may publish and how.
pub(crate) fn config(
    settings: &Settings,
    name: String,
    observer: Arc<dyn Observer>,
) -> Result<PublishPointConfig, gst::ErrorMessage> {
    let invalid = |error| gst::error_msg!(gst::ResourceError::Settings, ("{}", error));
    Ok(PublishPointConfig {
        name,
        route: settings.route().map_err(invalid)?,
        access: settings.access().map_err(invalid)?,
        settings: settings.stream(),
        listener: settings.listener(),
        port: settings.port_settings().map_err(invalid)?,
        observer,
    })
}

/// Listens where the properties say.
pub(crate) fn claim(settings: &Settings, point: &PublishPoint) -> Result<Claim, gst::ErrorMessage> {
    let claimed = server::claim(settings.host(), settings.port(), point);
    claimed.map_err(|error| start_error(&error))
}

/// Starts or stops the draining of what an element has claimed.
pub(crate) fn drain(element: &gst::Element, control: &DrainControl, timeout: Option<Duration>) {
    if let Err(error) = control.set(timeout) {
        gst::element_warning!(
            element,
            gst::ResourceError::Busy,
            ("Could not listen again after draining: {error}. Another program has the port")
        );
    }
}

/// The name of an element with those of the bins that it is in, up to the pipeline.
pub(crate) fn shown_name(element: &gst::Element) -> String {
    let mut name = element.name().to_string();
    let mut around = element.parent();
    while let Some(bin) = around
        && let Some(next) = bin.parent()
    {
        name = format!("{}/{name}", bin.name());
        around = Some(next);
    }
    name
}

fn start_error(error: &ClaimError) -> gst::ErrorMessage {
    use gst::ResourceError::{Busy, NotFound, OpenRead, Settings};
    let domain = match error.kind() {
        ClaimErrorKind::Busy => Busy,
        ClaimErrorKind::Settings => Settings,
        ClaimErrorKind::File => NotFound,
        ClaimErrorKind::Other => OpenRead,
    };
    gst::error_msg!(domain, ("{}", error))
}
