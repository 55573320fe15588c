// SPDX-License-Identifier: MPL-2.0

//! Takes RTMP publishers, cleans what they send, and serves it as HLS.

mod catalog;
mod health;
mod metrics;
mod notify;
mod options;
mod reconnect;
mod ring;
mod web;

use std::error::Error;
use std::sync::Arc;

use catalog::{Catalog, StreamName};
use gst::prelude::*;
use health::Health;
use notify::{Deliveries, Receiver};
use options::Options;
use reconnect::Reconnect;
use ring::Ring;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use web::Site;

/// The place of the ingest: streams come and go, and nothing is made of them.
fn listen(
    site: &Arc<Site>,
    options: &Options,
    port: u32,
    application: &str,
) -> Result<gst::Element, Box<dyn Error>> {
    let element = gst::ElementFactory::make("rtmp2multiserversrc")
        .property("host", &options.rtmp.host)
        .property("port", port)
        .property("application", application)
        .property("stream-key", "{stream}")
        .property("max-streams", options.max_streams)
        .build()?;
    for signal in ["publisher-added", "publisher-removed"] {
        let site = site.clone();
        element.connect(signal, false, move |arguments| {
            let element: gst::Element = arguments[0].get().ok()?;
            let info: gst::Structure = arguments[1].get().ok()?;
            let variables: gst::Structure = info.get("variables").ok()?;
            let text = |name: &str| variables.get::<&str>(name).ok();
            let name = StreamName::new(text("application")?, text("user"), text("stream")?)?;
            if signal == "publisher-removed" {
                println!("{} is gone", name.directory().display());
                site.catalog.remove(&name);
                return None;
            }
            site.catalog.add(&name);
            let pad: &str = info.get("pad").ok()?;
            site.reconnect.ask(&element, pad, &info, &name);
            site.catalog.update(&name, |stream| stream.is_ready = true);
            println!("ready {name} {}", web::playlist(&site.base, &name));
            None
        });
    }
    site.health.set("rtmp", None);
    element.set_state(gst::State::Playing)?;
    Ok(element)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::read();
    gst::init()?;
    gstrtmp2server::plugin_register_static()?;
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    std::fs::create_dir_all(&options.directory)
        .map_err(|error| format!("--directory {}: {error}", options.directory.display()))?;
    let socket = TcpListener::bind(options.http)
        .await
        .map_err(|error| format!("--http {}: {error}", options.http))?;
    let local = socket.local_addr()?;
    let base = options.public_base(local);

    let (catalog, changes) = Catalog::new();
    let ring = Ring::new(options.relays.clone(), options.this_relay.clone());
    let site = Arc::new(Site {
        catalog: Arc::new(catalog),
        directory: options.directory.clone(),
        base: base.clone(),
        hls_js: web::read_hls_js(&options.hls_js),
        health: Arc::new(Health::new(options.directory.clone())),
        deliveries: Arc::new(Deliveries::default()),
        reconnect: Arc::new(Reconnect::new(ring)),
    });
    let receiver = options.notify.clone().map(|url| Receiver {
        url,
        secret: options.notify_secret.clone(),
        base,
    });
    let (end, has_ended) = oneshot::channel::<()>();
    let has_ended = async {
        let _ = has_ended.await;
    };
    let telling = notify::run(changes, receiver, site.deliveries.clone(), has_ended);
    let telling = tokio::spawn(telling);
    println!("page on http://{local}/");

    let first = listen(
        &site,
        &options,
        options.rtmp.port.into(),
        "{application}/{user}",
    )?;
    let port = first.property("current-port");
    let second = listen(&site, &options, port, "{application}")?;
    println!("listening on rtmp://{}:{port}/", options.rtmp.host);

    web::serve(socket, site, async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
    .await?;
    // Here the ingest ends, and with it all streams. Then nothing more is to be told.
    for element in [first, second] {
        element.set_state(gst::State::Null)?;
    }
    drop(end);
    telling.await?;
    Ok(())
}
