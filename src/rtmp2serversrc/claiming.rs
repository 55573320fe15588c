// SPDX-License-Identifier: MPL-2.0

//! An element's claim on the server while it runs: a route of its own, or one stream of another
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

/// Origin of the element's stream at the next start.
#[derive(Debug, Default)]
pub(super) enum StreamOrigin {
    /// A route of the element's own, by its properties.
    #[default]
    Route,
    /// A stream of another element, which can be started once.
    Attached {
        number: u32,
        claim: Option<StreamClaim>,
    },
}

impl StreamOrigin {
    pub(super) fn attached(claim: StreamClaim) -> Self {
        StreamOrigin::Attached {
            number: claim.number(),
            claim: Some(claim),
        }
    }

    /// Returns the number of an attached stream.
    pub(super) fn number(&self) -> Option<u32> {
        match self {
            StreamOrigin::Route => None,
            StreamOrigin::Attached { number, .. } => Some(*number),
        }
    }

    /// Returns an attached stream that has not started yet.
    pub(super) fn stream(&self) -> Option<Arc<Stream>> {
        match self {
            StreamOrigin::Route => None,
            StreamOrigin::Attached { claim, .. } => {
                claim.as_ref().map(|claim| claim.stream().clone())
            }
        }
    }

    /// Removes an attached stream that will not start.
    pub(super) fn detach(&mut self) -> Option<StreamClaim> {
        match self {
            StreamOrigin::Route => None,
            StreamOrigin::Attached { claim, .. } => claim.take(),
        }
    }

    /// Returns the claim to start with. None where the element has a route of its own.
    pub(super) fn take(&mut self) -> Result<Option<StreamClaim>, gst::ErrorMessage> {
        match self {
            StreamOrigin::Route => Ok(None),
            StreamOrigin::Attached { claim, .. } => match claim.take() {
                Some(claim) => Ok(Some(claim)),
                None => Err(gst::error_msg!(
                    gst::ResourceError::Busy,
                    ("The stream is over")
                )),
            },
        }
    }
}

/// The claim of an element from start to stop.
#[derive(Debug)]
pub(super) enum ActiveClaim {
    Route(Claim, Arc<Stream>),
    Attached(StreamClaim),
}

impl ActiveClaim {
    pub(super) fn claim(
        settings: &Settings,
        config: PublishPointConfig,
    ) -> Result<Self, gst::ErrorMessage> {
        let (point, stream) = PublishPoint::fixed(config);
        let claim = claim(settings, &point)?;
        Ok(ActiveClaim::Route(claim, stream))
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        match self {
            ActiveClaim::Route(_, stream) => stream,
            ActiveClaim::Attached(claim) => claim.stream(),
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            ActiveClaim::Route(claim, _) => Some(claim.address()),
            ActiveClaim::Attached(_) => None,
        }
    }

    pub(super) fn drain_control(&self) -> Option<DrainControl> {
        match self {
            ActiveClaim::Route(claim, _) => Some(claim.drain_control()),
            ActiveClaim::Attached(_) => None,
        }
    }
}

/// Returns the configuration of a publish point with these properties.
pub(crate) fn config(
    settings: &Settings,
    name: String,
    observer: Arc<dyn Observer>,
) -> Result<PublishPointConfig, gst::ErrorMessage> {
    let invalid = |error| gst::error_msg!(gst::ResourceError::Settings, ("{}", error));
    settings.quality().map_err(invalid)?;
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

/// Listens on the address of the properties.
pub(crate) fn claim(settings: &Settings, point: &PublishPoint) -> Result<Claim, gst::ErrorMessage> {
    let claimed = server::claim(settings.host(), settings.port(), point);
    claimed.map_err(|error| start_error(&error))
}

/// Starts or stops draining of an element's claim, as `timeout` returns it.
pub(crate) fn drain(
    element: &gst::Element,
    control: &DrainControl,
    timeout: impl Fn() -> Option<Duration>,
) {
    apply_latest(timeout, |timeout| {
        if let Err(error) = control.set(timeout) {
            gst::element_warning!(
                element,
                gst::ResourceError::Busy,
                ("Could not listen again after draining, since the port is in use: {error}")
            );
        }
    });
}

/// Applies the present value of a property. Another thread may set it meanwhile, and be faster to
/// apply it: then it is applied again, so that the older value is not the last one.
fn apply_latest<T: Copy + PartialEq>(read: impl Fn() -> T, apply: impl Fn(T)) {
    let mut value = read();
    loop {
        apply(value);
        let present = read();
        if present == value {
            return;
        }
        value = present;
    }
}

/// Returns the name of an element with the names of its bins, up to the pipeline.
pub(crate) fn full_name(element: &gst::Element) -> String {
    let mut name = element.name().to_string();
    let mut parent = element.parent();
    while let Some(bin) = parent
        && let Some(next) = bin.parent()
    {
        name = format!("{}/{name}", bin.name());
        parent = Some(next);
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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn a_property_set_while_it_is_applied_is_applied_again() {
        let timeout = |seconds| Some(Duration::from_secs(seconds));
        let property = Cell::new(timeout(10));
        let applied = RefCell::new(Vec::new());
        apply_latest(
            || property.get(),
            |value| {
                applied.borrow_mut().push(value);
                // Another thread shortens the time, and applies that first.
                property.set(timeout(1));
            },
        );
        assert_eq!(*applied.borrow(), [timeout(10), timeout(1)]);
    }
}
