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

use catalog::Catalog;
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

    // The place of the ingest: it says what is wrong with it, and whom it has.
    let source = gst::ElementFactory::make("rtmp2serversrc").build()?;
    site.health.set("rtmp", None);
    source.connect("publisher-added", false, {
        let (site, source) = (site.clone(), source.clone());
        move |_| {
            let name = catalog::StreamName::new("live", None, "cam")?;
            let info = gst::Structure::new_empty("info");
            let asked = site.reconnect.ask(&source, "src_0", &info, &name);
            println!("{}", name.directory().display());
            site.catalog.add(&name);
            site.catalog
                .update(&name, |stream| stream.is_ready = !asked);
            site.catalog.remove(&name);
            None
        }
    });
    println!("listening on rtmp://{}/", options.rtmp);

    web::serve(socket, site, async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
    .await?;
    // Here the ingest ends, and with it all streams. Then nothing more is to be told.
    drop(end);
    telling.await?;
    Ok(())
}
