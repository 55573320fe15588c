// SPDX-License-Identifier: MPL-2.0

//! Takes RTMP publishers, cleans what they send, and serves it as HLS.

mod cadence;
mod catalog;
mod cleaner;
mod encoder;
mod health;
mod ingest;
mod mailbox;
mod metrics;
mod notify;
mod options;
mod packager;
mod passthrough;
mod reconnect;
mod ring;
mod segmenter;
mod shelf;
mod stream;
mod streams;
mod ts;
mod web;

use std::error::Error;
use std::sync::Arc;

use catalog::Catalog;
use health::Health;
use ingest::Ingest;
use notify::{Deliveries, Receiver};
use options::Options;
use reconnect::Reconnect;
use ring::Ring;
use streams::{Settings, Streams};
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
    health::write(&options.directory).map_err(|error| {
        let directory = options.directory.display();
        format!("--directory {directory}: it can't be written to: {error}")
    })?;
    let socket = TcpListener::bind(options.http)
        .await
        .map_err(|error| format!("--http {}: {error}", options.http))?;
    let local = socket.local_addr()?;
    let base = options.public_base(local);

    let (catalog, changes) = Catalog::new();
    let catalog = Arc::new(catalog);
    let ring = Ring::new(options.relays.clone(), options.this_relay.clone());
    let site = Arc::new(Site {
        catalog: catalog.clone(),
        directory: options.directory.clone(),
        base: base.clone(),
        hls_js: web::read_hls_js(&options.hls_js),
        health: Arc::new(Health::new(options.directory.clone(), catalog.clone())),
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

    let streams = Streams::new(Settings {
        catalog,
        directory: options.directory.clone(),
        base: site.base.clone(),
        passthrough: options.passthrough,
    });
    let streams =
        streams.map_err(|error| format!("--directory {}: {error}", options.directory.display()))?;
    let (ingest, port) = Ingest::start(&options, &streams, &site)?;
    println!("listening on rtmp://{}:{port}/", options.rtmp.host);

    web::serve(socket, site, async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
    .await?;
    // Before their publishers are cut off, which would be the end of the streams: another process goes on with them.
    tokio::task::spawn_blocking(move || streams.stop()).await?;
    drop(ingest);
    // All that there was to be told is on its way.
    drop(end);
    telling.await?;
    Ok(())
}
