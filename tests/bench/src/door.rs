//! The bare front door: actix-web, the body into one buffer of its declared size, 202 after the store has it.

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Result;
use bytes::BytesMut;
use clap::Args;
use futures_util::StreamExt;
use partita_core::partition_of;
use std::{future::Future, io::Write, net::SocketAddr};

/// How the door listens.
#[derive(Debug, Clone, Args)]
pub struct DoorArgs {
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// HTTP threads.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

/// Where a body becomes durable.
pub trait Store: Clone + Send + 'static {
    /// The number of partitions that keys are spread over.
    fn partitions(&self) -> u32;

    /// Stores a body; answers with its offset when it is durable.
    fn append(&self, partition: u32, key: String, body: BytesMut) -> impl Future<Output = Result<u64>>;
}

/// Says where a door listens, in the form that the driver waits for.
pub fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "listening on {address}")?;
    out.flush()
}

/// Serves `POST /v1/tasks/{key}` until the process is told to end.
pub async fn serve<S: Store>(args: DoorArgs, store: S) -> Result<()> {
    let server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(store.clone())).route("/v1/tasks/{key}", web::post().to(post::<S>))
    })
    .workers(args.workers)
    .backlog(1024)
    .bind(args.listen)?;
    announce(server.addrs()[0])?;
    Ok(server.run().await?)
}

async fn post<S: Store>(
    key: web::Path<String>,
    request: actix_web::HttpRequest,
    mut payload: web::Payload,
    store: web::Data<S>,
) -> HttpResponse {
    let length = request
        .headers()
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let mut body = BytesMut::with_capacity(length);
    while let Some(chunk) = payload.next().await {
        match chunk {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(error) => return HttpResponse::BadRequest().body(error.to_string()),
        }
    }
    let key = key.into_inner();
    let partition = partition_of(key.as_bytes(), store.partitions()).0;
    match store.append(partition, key, body).await {
        Ok(offset) => HttpResponse::Accepted().content_type("application/json").body(format!(
            r#"{{"id":"{partition}-{offset}","topic":"bare","partition":{partition},"offset":{offset}}}"#
        )),
        Err(error) => HttpResponse::ServiceUnavailable().body(error.to_string()),
    }
}
