//! The push handler: each task is delivered to a URL, in order, and its answer says what becomes of it. So a service in any language gets
//! ordered, durable, bounded delivery.
//!
//! A delivery is a CloudEvent in binary mode (CloudEvents 1.0.2, HTTP Protocol Binding). What came in as one goes out with the same
//! attributes. A task may be delivered more than once: `webhook-id` is the same each time.

mod answer;
mod config;
mod signature;
#[cfg(test)]
mod tests;

pub(crate) use config::PushConfig;

use anyhow::Context;
use bytes::Bytes;
use humantime::format_rfc3339_millis;
use partita::{Task, TaskContext, TaskError, TaskHandler};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
    redirect,
};
use signature::Secrets;
use std::{
    fmt::Write,
    net::TcpStream,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Payloads from this size on are signed on a thread of their own: an arbiter has other partitions to serve.
const SIGN_ASIDE: usize = 64 << 10;
/// What is kept of an answer's body, as a reason, in bytes.
const REASON: usize = 256;
/// How long a connection may take; less than a whole delivery, so that it is known which of the two took too long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a header's value may not have as it is (CloudEvents HTTP Protocol Binding, 3.1.3.2); beyond ASCII nothing may.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Where tasks go. Shared by all partitions.
#[derive(Debug)]
pub(crate) struct Target {
    client: Client,
    url: Url,
    secrets: Secrets,
}

impl Target {
    /// Nothing is asked of the receiver yet.
    pub(crate) fn new(config: &PushConfig) -> anyhow::Result<Arc<Self>> {
        let (url, secrets) = config.parse()?;
        let agent = concat!("partita/", env!("CARGO_PKG_VERSION"));
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let client = Client::builder()
            .default_headers(headers)
            .timeout(config.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout / 2))
            // A task goes where the operator said, and nowhere else.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .context("making an HTTP client")?;
        Ok(Arc::new(Self { client, url, secrets }))
    }

    /// Whoever answers, for people: a URL may have secrets in it.
    fn name(&self) -> String {
        format!("{} (handler.http.url)", self.url.host_str().unwrap_or_default())
    }
}

/// Whether somebody listens where tasks are to be delivered.
pub(crate) fn reach(config: &PushConfig) -> anyhow::Result<()> {
    let (url, _) = config.parse()?;
    let address = url.socket_addrs(|| None)?.into_iter().next().context("it has no address")?;
    TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    Ok(())
}

/// One partition's deliveries.
pub(crate) struct Push {
    target: Arc<Target>,
}

impl Push {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target }
    }
}

impl TaskHandler for Push {
    type Payload = Bytes;

    async fn handle(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        let target = &self.target;
        let id = format!("{}/{}-{}", ctx.fence().topic_id, ctx.partition(), ctx.offset());
        let mut headers = event(&task, ctx);
        set(&mut headers, "webhook-id", &id);
        set(&mut headers, "partita-attempt", &ctx.attempt().to_string());
        set(&mut headers, "partita-epoch", &ctx.epoch().to_string());
        sign(&target.secrets, &mut headers, &id, task.payload.clone()).await?;
        let request = target.client.post(target.url.clone()).headers(headers).body(task.payload);
        match request.send().await {
            Ok(response) => answer::judge(response, target).await,
            Err(error) if error.is_connect() => {
                let dependency = format!("{}: {}", target.name(), answer::cause(&error));
                Err(TaskError::Unavailable { dependency, retry_after: None })
            }
            Err(error) => Err(TaskError::retry(answer::cause(&error))),
        }
    }
}

/// The headers of the event that the task is.
fn event(task: &Task<Bytes>, ctx: &TaskContext) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, "ce-specversion", "1.0");
    set(&mut headers, "ce-id", &task.id);
    set(&mut headers, "ce-source", &format!("urn:partita:{}", ctx.topic()));
    set(&mut headers, "ce-type", task.type_name.as_deref().unwrap_or("partita.task"));
    // A time that has no such form is left out.
    let mut time = String::new();
    if write!(time, "{}", format_rfc3339_millis(ctx.created_at())).is_ok() {
        set(&mut headers, "ce-time", &time);
    }
    set(&mut headers, "ce-partitionkey", ctx.key_str());
    // Its own attributes, where it came as an event.
    for (name, value) in ctx.headers() {
        set(&mut headers, name, value);
    }
    let media_type = task.content_type.as_deref().unwrap_or("application/octet-stream");
    if let Ok(value) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    headers
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    let value = match name.starts_with("ce-") {
        true => utf8_percent_encode(value, ENCODED).to_string(),
        false => value.to_owned(),
    };
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

async fn sign(secrets: &Secrets, headers: &mut HeaderMap, id: &str, body: Bytes) -> Result<(), TaskError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    set(headers, "webhook-timestamp", &now.to_string());
    if secrets.is_empty() {
        return Ok(());
    }
    let (aside, secrets, id) = (body.len() >= SIGN_ASIDE, secrets.clone(), id.to_owned());
    let sign = move || secrets.sign(&id, now, &body);
    let signature = if aside { tokio::task::spawn_blocking(sign).await? } else { sign() };
    if let Some(Ok(value)) = signature.map(HeaderValue::try_from) {
        headers.insert("webhook-signature", value);
    }
    Ok(())
}
