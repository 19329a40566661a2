//! A service that tasks are delivered to. What it does with a delivery is the first word of its payload:
//!
//! `busy`: it asks for a second of patience, once. `silent`: it never answers. `held`: it answers when it is told to. Anything else it
//! answers at once.

use crate::server::Setup;
use anyhow::{Context, Result, ensure};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

const DONE: &str = "200 OK";
const BUSY: &str = "503 Service Unavailable\r\nretry-after: 1";

/// One delivery of a task.
#[derive(Debug, Clone)]
pub struct Delivery {
    headers: HeaderMap,
    /// The payload.
    pub payload: String,
    /// When all of it was there.
    pub began: Instant,
    /// When it was answered, if it was.
    pub answered: Option<Instant>,
}

impl Delivery {
    /// A header's value; nothing where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What its task is known by.
    pub fn task(&self) -> &str {
        self.header("webhook-id")
    }
}

/// The service. Dropping it ends it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    desk: Arc<Desk>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Desk {
    deliveries: Mutex<Vec<Delivery>>,
    released: watch::Sender<bool>,
}

impl Receiver {
    /// Opens it.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk { deliveries: Mutex::default(), released: watch::Sender::new(false) });
        let accepting = tokio::spawn(accept(listener, desk.clone()));
        Ok(Self { address, desk, accepting })
    }

    /// A server's setup whose tasks are delivered to it.
    pub fn setup(&self, setup: &Setup) -> Setup {
        let url = format!("\"http://{}/tasks\"", self.address);
        setup.clone().set("handler.kind", "\"http\"").set("handler.http.url", url)
    }

    /// What was delivered so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.desk.lock().clone()
    }

    /// What was delivered of a key so far.
    pub fn of_key(&self, key: &str) -> Vec<Delivery> {
        let mut deliveries = self.deliveries();
        deliveries.retain(|delivery| delivery.header("ce-partitionkey") == key);
        deliveries
    }

    /// Has everything answered that is held.
    pub fn release(&self) {
        self.desk.released.send_replace(true);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    while let Ok((stream, _)) = listener.accept().await {
        let desk = desk.clone();
        tokio::spawn(async move { desk.serve(stream).await });
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Vec<Delivery>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one delivery.
    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let (headers, payload) = read(&mut stream).await?;
        let word = payload.split(' ').next().unwrap_or_default().to_owned();
        let (number, is_first) = self.note(headers, payload);
        let status = match word.as_str() {
            "busy" if is_first => BUSY,
            "silent" => {
                hung_up(&mut stream).await;
                return Ok(());
            }
            "held" => tokio::select! {
                () = self.released() => DONE,
                () = hung_up(&mut stream) => return Ok(()),
            },
            _ => DONE,
        };
        self.lock()[number].answered = Some(Instant::now());
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
        Ok(())
    }

    /// The delivery's number, and whether it is its task's first.
    fn note(&self, headers: HeaderMap, payload: String) -> (usize, bool) {
        let delivery = Delivery { headers, payload, began: Instant::now(), answered: None };
        let mut deliveries = self.lock();
        let is_first = deliveries.iter().all(|earlier| earlier.task() != delivery.task());
        deliveries.push(delivery);
        (deliveries.len() - 1, is_first)
    }

    async fn released(&self) {
        // The sender is this desk's own: it does not go away.
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }
}

/// Returns when the other side is gone.
async fn hung_up(stream: &mut TcpStream) {
    while let Ok(1..) = stream.read(&mut [0_u8]).await {}
}

/// Reads a request to its end.
async fn read(stream: &mut TcpStream) -> Result<(HeaderMap, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut headers = HeaderMap::new();
            for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
                headers.insert(HeaderName::try_from(name)?, value.parse()?);
            }
            let length = headers.get(CONTENT_LENGTH).context("no length")?.to_str()?.parse::<usize>()?;
            if body.len() >= length {
                return Ok((headers, body.to_owned()));
            }
        }
        ensure!(stream.read_buf(&mut bytes).await? > 0, "it ended early");
    }
}
