//! A refusal that reaches a sender who is still sending.
//!
//! A small rest of the body is read first, so that the connection can be used again. Otherwise the answer goes out at once and holds the
//! unread body until it has: the server then marks it `Connection: close` and, once it is written, reads and drops what still
//! comes until the sender closes or [`LINGER`] has passed. Closing earlier would make the sender's kernel
//! discard the answer.

use super::{
    body::RequestBody,
    problem::{Problem, ProblemCode},
    request_id::RequestId,
};
use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::ConnectionType,
};
use bytes::Bytes;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// How long a refused body is read and dropped.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// The largest rest of a body that is read before the answer is sent, and how long that may take.
const SMALL_REST: u64 = 64 << 10;
const SMALL_REST_TIME: Duration = Duration::from_millis(200);

/// The answer to a request whose body may not have been read.
pub(super) async fn refuse(
    problem: &Problem,
    id: &RequestId,
    mut body: RequestBody,
    expects_continue: bool,
) -> HttpResponse {
    if !expects_continue && may_go_on(problem.code) {
        read_small_rest(&mut body).await;
    }
    let (mut response, bytes) = problem.parts(id);
    if problem.code == ProblemCode::Draining {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let unread = (!body.ended()).then(|| Unread::new(body));
    response.set_body(whole(bytes.into(), unread))
}

/// The rest of a body, kept as it is until the answer to it was sent.
pub(super) struct Unread(#[expect(dead_code, reason = "it is only held")] Payload);

impl Unread {
    pub(super) fn new(body: RequestBody) -> Self {
        Self(body.into_payload())
    }
}

/// A whole answer, which holds what was not read of the request until it is sent.
pub(super) fn whole(bytes: Bytes, unread: Option<Unread>) -> BoxBody {
    match unread {
        Some(unread) => BoxBody::new(Answer { bytes, _unread: unread }),
        None => BoxBody::new(bytes),
    }
}

/// Whether the sender is worth waiting for: it is there and sends what it said.
pub(super) fn may_go_on(code: ProblemCode) -> bool {
    !matches!(code, ProblemCode::IncompleteBody | ProblemCode::BodyTimeout | ProblemCode::Draining)
}

async fn read_small_rest(body: &mut RequestBody) {
    if body.outstanding().is_some_and(|rest| rest <= SMALL_REST) {
        let rest = async { while let Ok(Some(_)) = body.next().await {} };
        let _ = tokio::time::timeout(SMALL_REST_TIME, rest).await;
    }
}

/// A whole answer and the body it does not wait for.
struct Answer {
    bytes: Bytes,
    _unread: Unread,
}

impl MessageBody for Answer {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
    }
}
