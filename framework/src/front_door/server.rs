//! The front door's listener: started, drained and stopped in order; or only its routes, for a service with a listener of
//! its own.
//!
//! The listener is put together from the parts that actix-web's `HttpServer` is made of, because that has no way to answer
//! `Expect: 100-continue`.

use super::{
    access::{Access, Verb},
    door::Door,
    expect::expect,
    http1::{Connection, HEAD_TIMEOUT, Paced, Turn},
    http2::{Bounded, CONNECTION_WINDOW, WINDOW},
    meter::NO_ROUTE,
    openapi,
    options::FrontDoorOptions,
    post_task,
    problem::{Problem, ProblemCode},
    refuse::LINGER,
    request_id::{RequestId, X_REQUEST_ID},
    tls,
};
use crate::{Error, config::FrontDoorConfig};
use actix_cors::Cors;
use actix_http::{HttpService, Protocol, Request, Response};
use actix_rt::net::TcpStream;
use actix_service::{ServiceFactoryExt, map_config};
use actix_tls::accept::{
    TlsError,
    rustls_0_23::{Acceptor, TlsStream},
};
use actix_web::{
    App, HttpMessage,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{AppConfig, Server, ServerHandle, Service, ServiceRequest, ServiceResponse, fn_service},
    http::{Method, StatusCode, header::ACCESS_CONTROL_REQUEST_METHOD},
    middleware::{Condition, Next, from_fn},
    web::{self, ServiceConfig},
};
use futures_util::TryFutureExt;
use std::{
    future::ready,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpSocket;

/// How long a connection may be idle between requests: longer than proxies keep theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long requests that were given up may take to be answered.
const AFTER_GRACE: Duration = Duration::from_secs(1);
/// How long answers that were given may take to be sent when the listener stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long a browser may remember what it may do.
const PREFLIGHT_SECONDS: usize = 3600;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A front door that is not open yet.
#[derive(Clone)]
pub struct FrontDoor {
    door: Arc<Door>,
    options: FrontDoorOptions,
}

/// A front door that is open.
#[derive(Clone)]
pub struct FrontDoorHandle {
    door: Arc<Door>,
    address: SocketAddr,
    server: ServerHandle,
}

impl FrontDoor {
    /// Makes one; an error says what is wrong with its tokens. The metrics recorder must be installed before.
    pub fn new(options: FrontDoorOptions) -> Result<Self, Error> {
        Ok(Self { door: Arc::new(Door::new(&options)?), options })
    }

    /// Whether a front door could be made with these settings, as far as the files that they name are concerned.
    pub fn check(config: &FrontDoorConfig) -> Result<(), Error> {
        Access::new(config)?;
        tls::server_config(config).map(drop)
    }

    /// The routes, for an actix-web `App` of the caller's own: `App::new().configure(front_door.configure())`. All of
    /// them share this front door's state. Its tokens are asked for at the front door's own routes only: those of
    /// [`FrontDoorOptions::routes`] are open to everybody then, unless the `App` asks for something. What a connection may take, and
    /// for how long, is bounded by this front door's own listener alone.
    pub fn configure(&self) -> impl Fn(&mut ServiceConfig) + Clone + Send + Sync + 'static {
        let door = self.door.clone();
        let routes = self.options.routes.clone();
        move |services| {
            // A scope, because its prefix is compared where a resource's pattern is a regular expression: the key is read from the
            // path as it was sent anyway.
            services
                .app_data(web::Data::from(door.clone()))
                .service(web::scope("/v1/tasks").default_service(web::to(post_task::tasks)))
                .service(web::resource(openapi::PATH).route(web::to(post_task::description)));
            routes.iter().for_each(|routes| routes(services));
        }
    }

    /// Listens, on the actix system of this thread; the requests are served by threads of the front door's own.
    pub fn start(self) -> Result<FrontDoorHandle, Error> {
        if actix_rt::System::try_current().is_none() {
            return Err(Error::NoSystem);
        }
        let listen = self.options.config.listen;
        let failed = |source| Error::Listen { address: listen, source };
        let listener = bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let threads = self.options.config.threads.unwrap_or_else(cores).max(1);
        let tls = tls::server_config(&self.options.config)?;
        let most = self.options.config.max_connections.div_ceil(threads).max(1);
        let builder = Server::build().max_concurrent_connections(most);
        let stopping = builder.graceful_shutdown_signal();
        let (door, configure) = (self.door.clone(), self.configure());
        let origins = self.options.config.cors_origins.clone();
        let app = move || {
            App::new()
                .wrap(from_fn(others_enter))
                // Outside of that: a browser asks without a token whether it may ask with one.
                .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
                .wrap(Condition::new(!origins.is_empty(), from_fn(refused_origins)))
                .wrap_fn(in_turn)
                .configure(&configure)
                .default_service(web::to(post_task::not_found))
        };
        // With TLS and without it is a service of another type.
        macro_rules! service {
            () => {{
                let (stopping, door) = (stopping.clone(), door.clone());
                HttpService::build()
                    .graceful_shutdown_signal(move || {
                        let stopping = stopping.clone();
                        async move { stopping.notified().await }
                    })
                    .keep_alive(KEEP_ALIVE)
                    // Over HTTP/1.1 the stream is stricter.
                    .client_request_timeout(HEAD_TIMEOUT + Duration::from_secs(1))
                    .client_disconnect_timeout(LINGER)
                    .h2_initial_window_size(WINDOW)
                    .h2_initial_connection_window_size(CONNECTION_WINDOW)
                    .local_addr(address)
                    .on_connect_ext(|stream: &Paced<_>, data| stream.introduce(data))
                    .expect(fn_service(move |request| ready(expected(&door, request))))
                    .finish(map_config(app(), |()| AppConfig::default()))
            }};
        }
        let builder = builder.workers(threads).disable_signals().shutdown_timeout(LAST_ANSWERS.as_secs());
        let builder = match tls {
            // As actix-http's own services are put together, with bounds on what a connection takes.
            None => builder.listen("front-door", listener, move || {
                let door = door.clone();
                fn_service(move |stream| ready(Ok(plain(stream, &door)))).and_then(service!())
            }),
            Some(tls) => builder.listen("front-door", listener, move || {
                let mut acceptor = Acceptor::new(tls.clone());
                acceptor.set_handshake_timeout(HEAD_TIMEOUT);
                let acceptor = acceptor.map_init_err(drop).map_err(TlsError::into_service_error);
                let http = service!().map_err(TlsError::Service);
                let door = door.clone();
                acceptor.and_then(move |stream| ready(Ok(negotiated(stream, &door)))).and_then(http)
            }),
        };
        let server = builder.map_err(failed)?.run();
        let handle = server.handle();
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the front door has ended");
            }
        });
        Ok(FrontDoorHandle { door: self.door, address, server: handle })
    }
}

impl FrontDoorHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses new requests from now on, with 503 and `Connection: close`, and returns when those begun are answered. Bodies
    /// that are not whole after `grace` are given up: 503. What waits for the log's answer then is not waited for: close
    /// the log, which answers everything, and then `stop`.
    pub async fn drain(&self, grace: Duration) {
        self.door.begin_drain();
        if tokio::time::timeout(grace, self.door.idle()).await.is_err() {
            self.door.cut.cancel();
            let _ = tokio::time::timeout(AFTER_GRACE, self.door.idle()).await;
        }
    }

    /// Stops listening and closes the connections, each after the answer it is about to send. Drain first.
    pub async fn stop(&self) {
        self.door.begin_drain();
        self.door.cut.cancel();
        self.server.stop(true).await;
    }
}

/// A connection, what HTTP is spoken on it, and with whom.
type Accepted<S> = (Paced<S>, Protocol, Option<SocketAddr>);

/// A connection without TLS.
fn plain(stream: TcpStream, door: &Door) -> Accepted<TcpStream> {
    let peer = prepared(&stream);
    (Paced::new(stream, true, door), Protocol::Http1, peer)
}

/// A connection with TLS.
fn negotiated(stream: TlsStream<TcpStream>, door: &Door) -> Accepted<Bounded<TlsStream<TcpStream>>> {
    let (socket, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(tls::HTTP2);
    let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
    let peer = prepared(socket);
    (Paced::new(Bounded::new(stream, is_http2, &door.budget), !is_http2, door), protocol, peer)
}

/// Sees to it that small answers go out at once, and says to whom.
fn prepared(socket: &TcpStream) -> Option<SocketAddr> {
    // Without it they may be late, and are right all the same.
    let _ = socket.set_nodelay(true);
    socket.peer_addr().ok()
}

/// What asks before it sends. One that is refused is answered, and comes to no route.
fn expected(door: &Door, request: Request) -> Result<Request, Response<BoxBody>> {
    let connection: Option<Rc<Connection>> = request.conn_data().cloned();
    expect(door, request).inspect_err(|_| drop(Turn::begin(connection.as_ref())))
}

/// Tells the connection of a request how long that is in hand.
fn in_turn<S, B>(
    request: ServiceRequest,
    routes: &S,
) -> impl Future<Output = Result<ServiceResponse<EitherBody<B>>, S::Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>>,
    B: MessageBody + 'static,
{
    let turn = Turn::begin(request.conn_data());
    routes.call(request).map_ok(move |mut answer| {
        identify(&mut answer);
        match turn {
            Some(turn) => turn.until_answered(answer),
            None => answer.map_into_left_body(),
        }
    })
}

/// An answer has its request's id, whatever gave it.
fn identify<B>(answer: &mut ServiceResponse<B>) {
    if !answer.headers().contains_key(&X_REQUEST_ID) {
        let id = RequestId::of(answer.request().headers());
        answer.headers_mut().insert(X_REQUEST_ID.clone(), id.header());
    }
}

/// What pages of these origins may do.
fn cors(origins: &str) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST"])
        .allow_any_header()
        .expose_headers([
            "X-Request-Id",
            "Retry-After",
            "Idempotent-Replayed",
            "Preference-Applied",
            "RateLimit",
            "RateLimit-Policy",
        ])
        .max_age(PREFLIGHT_SECONDS);
    if origins.trim() == "*" {
        return cors.allow_any_origin().send_wildcard();
    }
    origins.split(',').map(str::trim).filter(|origin| !origin.is_empty()).fold(cors, Cors::allowed_origin)
}

/// What a browser is refused has the form of every other refusal.
async fn refused_origins(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    // Whatever else is refused, a route has refused.
    let asks =
        *request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let response = next.call(request).await?.map_into_boxed_body();
    if !asks || response.status() != StatusCode::BAD_REQUEST {
        return Ok(response);
    }
    let detail = "pages of this origin may not do this (front_door.cors_origins)";
    let problem = Problem::new(ProblemCode::Forbidden, detail).respond(response.request());
    Ok(response.into_response(problem))
}

/// Asks for a token at the routes that are not the front door's own; those ask themselves.
async fn others_enter(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let door = request.app_data::<web::Data<Door>>().cloned();
    if let Some(door) = door.filter(|_| !post_task::is_own(request.path())) {
        let verb = match *request.method() {
            Method::GET | Method::HEAD | Method::OPTIONS => Verb::Read,
            _ => Verb::Write,
        };
        match door.access.enter(request.headers(), verb) {
            Ok(Some(caller)) => _ = request.extensions_mut().insert(caller),
            Ok(None) => {}
            Err(problem) => {
                let (request, payload) = request.into_parts();
                let response =
                    post_task::stray(door.into_inner(), NO_ROUTE, &problem, &request, payload).await;
                return Ok(ServiceResponse::new(request, response));
            }
        }
    }
    next.call(request).await.map(ServiceResponse::map_into_boxed_body)
}

/// The standard library's own `bind` queues 128 connections at most: fewer than may come at once.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
