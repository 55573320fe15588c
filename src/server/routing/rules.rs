// SPDX-License-Identifier: MPL-2.0

//! What a client meets before it publishes.

use std::sync::Arc;

use crate::server::callback_thread;
use crate::server::events::{EventDispatcher, Observer, PublisherEvent};
use crate::server::port::listener::{ListenerSettings, PortSettings};
use crate::server::publisher::Publisher;
use crate::server::routing::access::Access;
use crate::server::routing::route::Route;
use crate::server::stream::{PublishPointConfig, StreamSettings};

/// What an element asks of clients on its route, and how its application hears of them. It does not
/// change while the element runs, and all streams of an element share it.
#[derive(Debug)]
pub(crate) struct PublishRules {
    name: String,
    route: Route,
    access: Access,
    listener: ListenerSettings,
    port: PortSettings,
    observer: Arc<dyn Observer>,
    notices: Arc<EventDispatcher>,
}

impl PublishRules {
    /// With the rest of what a configuration has. So many notices may wait before nobody is taken
    /// any more.
    pub(crate) fn new(
        config: PublishPointConfig,
        max_waiting: usize,
    ) -> (Arc<Self>, StreamSettings) {
        let rules = PublishRules {
            name: config.name,
            route: config.route,
            access: config.access,
            listener: config.listener,
            port: config.port,
            notices: Arc::new(EventDispatcher::new(config.observer.clone(), max_waiting)),
            observer: config.observer,
        };
        (Arc::new(rules), config.settings)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) fn listener_settings(&self) -> ListenerSettings {
        self.listener
    }

    pub(crate) fn port_settings(&self) -> &PortSettings {
        &self.port
    }

    pub(crate) fn set_max_waiting(&self, max_waiting: usize) {
        self.notices.set_max_waiting(max_waiting);
    }

    /// Asks the application. It may take its time.
    pub(crate) fn may_publish(&self, publisher: &Publisher) -> bool {
        self.observer.may_publish(publisher)
    }

    /// Call it under the lock that makes the order.
    pub(crate) fn post(&self, notice: PublisherEvent) {
        self.notices.post(notice);
    }

    /// Whether the application is so far behind that nobody should be taken.
    pub(crate) fn is_behind(&self) -> bool {
        self.notices.is_full()
    }

    /// Waits until the application has heard of all that happened.
    pub(crate) fn flush_notices(&self) {
        if !callback_thread::is() {
            self.notices.flush();
        }
    }
}
