//! HTTP/1.1 and HTTP/2 over TLS, and certificates that are renewed.

use super::support::{Running, Setup};
use crate::config::FrontDoorConfig;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this name, and its key.
fn certificate(authority: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap(), key)
}

fn write(dir: &Path, authority: &Authority) -> CertificateDer<'static> {
    let (certificate, key) = certificate(authority, "localhost");
    std::fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    certificate.der().clone()
}

fn config(dir: &Path) -> FrontDoorConfig {
    FrontDoorConfig {
        tls_certificate: Some(dir.join("tls.crt")),
        tls_key: Some(dir.join("tls.key")),
        ..Setup::default().config
    }
}

/// A client's settings, with a certificate that is signed by `signer`.
fn client(
    versions: &[&'static SupportedProtocolVersion],
    authority: &Authority,
    alpn: &[u8],
    signer: Option<&Authority>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match signer {
        None => builder.with_no_client_auth(),
        Some(signer) => {
            let (certificate, key) = certificate(signer, "a client");
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

async fn connect_as(door: &Running, client: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(door.handle.address()).await?;
    TlsConnector::from(client).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn connect(
    door: &Running,
    authority: &Authority,
    alpn: &[u8],
    signer: Option<&Authority>,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(door, client(ALL_VERSIONS, authority, alpn, signer)).await
}

async fn post_http1(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"POST /v1/tasks/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn enters(door: &Running, client: Arc<ClientConfig>) -> bool {
    match connect_as(door, client).await {
        Ok(mut stream) => post_http1(&mut stream).await.unwrap_or_default().starts_with("HTTP/1.1 202 "),
        Err(_) => false,
    }
}

async fn post_http2(
    send: &mut h2::client::SendRequest<Bytes>,
    key: &str,
    body: Bytes,
) -> Result<(u16, Bytes), h2::Error> {
    let request = http::Request::post(format!("https://localhost/v1/tasks/{key}")).body(()).unwrap();
    let (response, mut stream) = send.clone().ready().await?.send_request(request, false)?;
    let sending = async {
        for piece in body.chunks(16_000) {
            stream.reserve_capacity(piece.len());
            while stream.capacity() < piece.len() {
                match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(_)) => {}
                    // The other side has answered already.
                    _ => return,
                }
            }
            if stream.send_data(Bytes::copy_from_slice(piece), false).is_err() {
                return;
            }
        }
        let _ = stream.send_data(Bytes::new(), true);
    };
    let ((), response) = tokio::join!(sending, response);
    let response = response?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        // A refusal is whole, and then the rest of what it refuses is not wanted (RFC 9113, 8.1).
        let Ok(piece) = piece else { break };
        let _ = body.flow_control().release_capacity(piece.len());
        all.extend_from_slice(&piece);
    }
    Ok((status, all.into()))
}

#[actix_rt::test]
async fn tasks_are_taken_over_http_1_and_http_2() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    write(dir.path(), &authority);
    let door = Setup { config: config(dir.path()), pool: 64 << 20, ..Setup::default() }.start();
    let mut http1 = connect(&door, &authority, b"http/1.1", None).await.unwrap();
    assert!(post_http1(&mut http1).await.unwrap().starts_with("HTTP/1.1 202 "));
    let http2 = connect(&door, &authority, b"h2", None).await.unwrap();
    assert_eq!(http2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) = h2::client::handshake(http2).await.unwrap();
    actix_rt::spawn(connection);
    let payload = Bytes::from(super::bodies::noise(700_000));
    let answers = futures_util::future::join_all((0..20).map(|number| {
        let (mut send, payload) = (send.clone(), payload.clone());
        async move { post_http2(&mut send, &format!("key-{number}"), payload).await }
    }));
    for answer in answers.await {
        assert_eq!(answer.unwrap().0, 202);
    }
    assert!(door.log.payloads()[1..].iter().all(|(_, stored)| *stored == payload));
    // A refusal is heard in the middle of the body, and the connection goes on.
    let (status, problem) = post_http2(&mut send, "k", vec![0; 3 << 20].into()).await.unwrap();
    assert_eq!(status, 413, "{problem:?}");
    assert_eq!(post_http2(&mut send, "k", "x".into()).await.unwrap().0, 202);
    // Half a task is none.
    let stored = door.log.payloads().len();
    let request = http::Request::post("https://localhost/v1/tasks/half").body(()).unwrap();
    let (response, mut half) = send.clone().ready().await.unwrap().send_request(request, false).unwrap();
    half.send_data("half".into(), false).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    half.send_reset(h2::Reason::CANCEL);
    assert!(response.await.is_err());
    assert_eq!(post_http2(&mut send, "k", Bytes::new()).await.unwrap().0, 202);
    let after: Vec<_> =
        door.log.payloads()[stored..].iter().map(|(key, payload)| (key.clone(), payload.len())).collect();
    assert_eq!(after, [("k".into(), 0)]);
}

#[actix_rt::test]
async fn more_requests_than_one_connection_may_have_open_wait_for_their_turn() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    write(dir.path(), &authority);
    let door = Setup { config: config(dir.path()), pool: 64 << 20, keep: false, ..Setup::default() }.start();
    let stream = connect(&door, &authority, b"h2", None).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    actix_rt::spawn(connection);
    // By its answer the client knows the limits.
    assert_eq!(post_http2(&mut send, "first", "x".into()).await.unwrap().0, 202);
    let answers = (0..3000).map(|number| {
        let mut send = send.clone();
        async move { post_http2(&mut send, &format!("key-{number}"), "x".into()).await.unwrap().0 }
    });
    let answers = futures_util::future::join_all(answers).await;
    assert_eq!(answers.iter().find(|status| **status != 202), None);
}

#[actix_rt::test]
async fn who_opens_more_requests_all_the_same_is_hung_up_on() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    write(dir.path(), &authority);
    let door = Setup { config: config(dir.path()), ..Setup::default() }.start();
    let mut stream = connect(&door, &authority, b"h2", None).await.unwrap();
    stream.write_all(&opening()).await.unwrap();
    let mut flood = Vec::new();
    for number in 0..3000 {
        // Without an end: each waits for its body.
        flood.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, POST_KEY));
    }
    // It may be hung up on before all of it is taken.
    let _ = stream.write_all(&flood).await;
    let answer = assert_hung_up_on(stream).await;
    // SETTINGS_MAX_CONCURRENT_STREAMS and SETTINGS_MAX_HEADER_LIST_SIZE, in its first frame.
    let settings = &answer[9..9 + usize::from(answer[2])];
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 128]), "{settings:?}");
    assert!(settings.chunks(6).any(|setting| setting == [0, 6, 0, 0, 0x7d, 0]), "{settings:?}");
    door.await_idle_pool();
    let mut http1 = connect(&door, &authority, b"http/1.1", None).await.unwrap();
    assert!(post_http1(&mut http1).await.unwrap().starts_with("HTTP/1.1 202 "));
}

#[actix_rt::test]
async fn a_flood_of_headers_over_http_2_is_hung_up_on() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    write(dir.path(), &authority);
    let door = Setup { config: config(dir.path()), ..Setup::default() }.start();
    // One byte each: 16 of the static table is `accept-encoding: gzip, deflate`.
    let headers = [0x90; 16_000];
    for continuations in [4, 60] {
        let mut stream = connect(&door, &authority, b"h2", None).await.unwrap();
        stream.write_all(&opening()).await.unwrap();
        let mut flood = frame(HEADERS, 0, 1, POST_KEY);
        for number in 1..=continuations {
            let last = if number == continuations { END_HEADERS } else { 0 };
            flood.extend(frame(CONTINUATION, last, 1, &headers));
        }
        let _ = stream.write_all(&flood).await;
        assert_hung_up_on(stream).await;
    }
    let mut http1 = connect(&door, &authority, b"http/1.1", None).await.unwrap();
    assert!(post_http1(&mut http1).await.unwrap().starts_with("HTTP/1.1 202 "));
}

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// `POST https://x/v1/tasks/k`, in HPACK (RFC 7541).
const POST_KEY: &[u8] = b"\x83\x87\x04\x0b/v1/tasks/k\x01\x01x";

/// What an HTTP/2 client begins with: the preface, and settings that are all the default.
fn opening() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

async fn assert_hung_up_on(mut stream: TlsStream<TcpStream>) -> Vec<u8> {
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "it is still open");
    answer
}

#[actix_rt::test]
async fn plain_http_gets_nowhere_and_disturbs_nobody() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    write(dir.path(), &authority);
    let door = Setup { config: config(dir.path()), ..Setup::default() }.start();
    let mut plain = TcpStream::connect(door.handle.address()).await.unwrap();
    plain.write_all(b"POST /v1/tasks/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let mut http1 = connect(&door, &authority, b"http/1.1", None).await.unwrap();
    assert!(post_http1(&mut http1).await.unwrap().starts_with("HTTP/1.1 202 "));
    assert_eq!(door.log.payloads().len(), 1);
}

#[actix_rt::test]
async fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
    let first = write(dir.path(), &authority);
    let door = Setup { config: config(dir.path()), ..Setup::default() }.start();
    let shown = async || {
        let stream = connect(&door, &authority, b"h2", None).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    assert_eq!(shown().await, first);
    std::fs::write(dir.path().join("tls.crt"), "no certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(shown().await, first);
    let second = write(dir.path(), &authority);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(shown().await, second);
}

#[actix_rt::test]
async fn where_clients_need_a_certificate_only_those_with_one_of_the_right_hand_enter() {
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), authority(), authority());
    write(dir.path(), &ours);
    std::fs::write(dir.path().join("clients.crt"), ours.pem()).unwrap();
    let config =
        FrontDoorConfig { tls_client_ca: Some(dir.path().join("clients.crt")), ..config(dir.path()) };
    let door = Setup { config, ..Setup::default() }.start();
    let enters = async |signer| enters(&door, client(ALL_VERSIONS, &ours, b"http/1.1", signer)).await;
    let admitted = async || [enters(None).await, enters(Some(&ours)).await, enters(Some(&theirs)).await];
    assert_eq!(admitted().await, [false, true, false]);
    // A file that names nobody changes nothing.
    for (written, then) in [("nobody", [false, true, false]), (&theirs.pem(), [false, false, true])] {
        std::fs::write(dir.path().join("clients.crt"), written).unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(admitted().await, then);
    }
    assert_eq!(door.log.payloads().len(), 3);
}

#[actix_rt::test]
async fn whose_certificate_is_not_wanted_any_more_does_not_enter_by_a_former_session() {
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), authority(), authority());
    write(dir.path(), &ours);
    std::fs::write(dir.path().join("clients.crt"), theirs.pem()).unwrap();
    let config =
        FrontDoorConfig { tls_client_ca: Some(dir.path().join("clients.crt")), ..config(dir.path()) };
    let door = Setup { config, ..Setup::default() }.start();
    let clients = ALL_VERSIONS.iter().map(|version| client(&[version], &ours, b"http/1.1", Some(&theirs)));
    let clients: Vec<_> = clients.collect();
    for client in &clients {
        assert!(enters(&door, client.clone()).await && enters(&door, client.clone()).await);
    }
    std::fs::write(dir.path().join("clients.crt"), ours.pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for client in clients {
        assert!(!enters(&door, client).await);
    }
}
