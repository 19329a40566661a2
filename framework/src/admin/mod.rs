//! The operators' listener: metrics, health and status, on an address of its own and on a thread of its own, so that it
//! answers while the front door or the log does not.
//!
//! What it shows comes through [`AdminSources`]; it knows neither the actors nor the log. Verbs are POST, and each leaves a line in the
//! log under the target `partita::audit`.

mod parked;
mod rewind;
mod routes;
#[cfg(test)]
mod tests;
mod verb;

use crate::{Error, Operations};
use actix_web::{App, HttpServer, dev::ServerHandle, web};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

/// How long the head of a request may take: the listener has one thread.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A question that is answered at once, from memory: the listener's one thread asks it.
pub type Ask<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// Where the answers come from.
#[derive(Clone)]
pub struct AdminSources {
    /// `/metrics`, in Prometheus' text format.
    pub metrics: Ask<String>,
    /// `/readyz`: why this process is not ready, for people; ready if there is no reason.
    pub not_ready: Ask<Vec<String>>,
    /// `/admin/v1/status`.
    pub status: Ask<serde_json::Value>,
    /// `/admin/v1/partitions`.
    pub partitions: Ask<serde_json::Value>,
    /// `/admin/v1/parked` and `/admin/v1/rewind`.
    pub operations: Operations,
    /// What verbs ask for as a bearer token, if anything.
    pub token: Option<String>,
}

/// The open listener.
#[derive(Clone)]
pub struct AdminHandle {
    address: SocketAddr,
    server: ServerHandle,
}

impl AdminHandle {
    /// Where it listens; the port that was chosen where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener. Do it last: until then it tells that the process is stopping.
    pub async fn stop(&self) {
        self.server.stop(false).await;
    }
}

/// Whether anybody at all could use the verbs.
pub(crate) fn is_open_to_all(listen: SocketAddr, token: Option<&str>) -> bool {
    token.is_none() && !listen.ip().is_loopback()
}

/// Why that is refused.
pub(crate) fn open_to_all(listen: SocketAddr) -> String {
    format!(
        "{listen} can be reached from elsewhere, and admin.token is not set: anybody could drop or rewind tasks\nhelp: set admin.token, or \
         listen on 127.0.0.1"
    )
}

/// Opens the listener, on the actix system of this thread. One that others can reach needs a token.
pub fn start(listen: SocketAddr, sources: AdminSources) -> Result<AdminHandle, Error> {
    if actix_rt::System::try_current().is_none() {
        return Err(Error::NoSystem);
    }
    let failed = |source| Error::Listen { address: listen, source };
    if is_open_to_all(listen, sources.token.as_deref()) {
        return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, open_to_all(listen))));
    }
    let listener = TcpListener::bind(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let app = move || {
        let sources = web::Data::new(sources.clone());
        App::new().app_data(sources).configure(routes::configure).default_service(web::to(routes::not_found))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .disable_signals()
        .client_request_timeout(HEAD_TIMEOUT)
        .listen(listener)
        .map_err(failed)?
        .run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(AdminHandle { address, server: handle })
}
