//! A pipeline inside a web service of your own: one process, one actix runtime, your routes, your log level, your shutdown.
//!
//! `cargo run -p partita-examples --example embed`, then `curl -X POST http://127.0.0.1:8090/orders/42 -d '2 apples'` and
//! `curl http://127.0.0.1:8090/orders/42`.

use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::Bytes;
use partita::{Config, NewTask, Pipeline, Running, Task, TaskContext, TaskError, TaskHandler};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// What the service knows, filled by the handlers: how many lines each order has.
#[derive(Clone, Default)]
struct Orders(Arc<Mutex<HashMap<String, usize>>>);

impl Orders {
    fn with<T>(&self, read: impl FnOnce(&mut HashMap<String, usize>) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct AddLine(Orders);

impl TaskHandler for AddLine {
    type Payload = Bytes;

    async fn handle(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        if task.payload.is_empty() {
            return Err(TaskError::reject("an order's line is not empty"));
        }
        self.0.with(|orders| *orders.entry(ctx.key_str().to_owned()).or_default() += 1);
        tracing::debug!(order = ctx.key_str(), "a line was added");
        Ok(())
    }
}

async fn add(running: web::Data<Running>, order: web::Path<String>, line: Bytes) -> HttpResponse {
    match running.submit(&order, NewTask { payload: line, ..NewTask::default() }).await {
        Ok(receipt) => HttpResponse::Accepted().body(format!("{}-{}\n", receipt.partition, receipt.offset)),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
    }
}

async fn show(orders: web::Data<Orders>, order: web::Path<String>) -> HttpResponse {
    match orders.with(|orders| orders.get(order.as_str()).copied()) {
        Some(lines) => HttpResponse::Ok().body(format!("{lines}\n")),
        None => HttpResponse::NotFound().finish(),
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.log.embedded.dir = "orders-data".into();
    config
}

/// Serves at `listen` until `stop`; then the web service stops first, so that what it has taken is stored, and the
/// pipeline after it.
async fn serve(
    config: Config,
    listen: SocketAddr,
    stop: impl Future<Output = ()>,
    bound: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let orders = Orders::default();
    let for_handlers = orders.clone();
    let pipeline = Pipeline::builder(config).handler(move |_| AddLine(for_handlers.clone())).start().await?;
    let running = web::Data::new(pipeline);
    let (data, orders) = (running.clone(), web::Data::new(orders));
    let server = HttpServer::new(move || {
        let app = App::new().app_data(data.clone()).app_data(orders.clone());
        app.route("/orders/{order}", web::post().to(add)).route("/orders/{order}", web::get().to(show))
    });
    let server = server.workers(1).disable_signals().bind(listen)?;
    bound(server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);
    tokio::select! {
        ended = running.wait() => ended?,
        () = stop => {}
    }
    handle.stop(true).await;
    serving.await??;
    running.shutdown().await?;
    Ok(())
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    // The library logs through `tracing`; the program says how much of it is shown, and how.
    tracing_subscriber::fmt().with_env_filter("warn,embed=debug").with_writer(std::io::stderr).init();
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    serve(config(), SocketAddr::from(([127, 0, 0, 1], 8090)), interrupted, |address| {
        tracing::warn!(%address, "listening");
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    async fn request(address: SocketAddr, method: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} /orders/42 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[actix_web::test]
    async fn an_order_that_was_accepted_is_counted_and_the_service_stops_when_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config();
        config.log.embedded.dir = dir.path().to_owned();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.front_door.listen, config.admin.listen) = (nowhere, nowhere);
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let service = actix_web::rt::spawn(serve(config, nowhere, stopped, |address| {
            let _ = bound.send(address);
        }));
        let address = address.await.unwrap();
        for line in ["2 apples", "a pear"] {
            assert!(request(address, "POST", line).await.starts_with("HTTP/1.1 202"));
        }
        let counted = async {
            while !request(address, "GET", "").await.ends_with("\r\n\r\n2\n") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), counted).await.unwrap();
        stop.send(()).unwrap();
        service.await.unwrap().unwrap();
    }
}
