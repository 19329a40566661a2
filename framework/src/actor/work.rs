//! What a runner drives for each task: one handler, or several behind a type name.

use crate::{
    handler::{Assignment, Task, TaskContext, TaskError, TaskHandler},
    log::Record,
};
use bytes::Bytes;
use partita_proto::v1::Envelope;
use prost::Message;
use std::{any::Any, fmt::Write, future::Future, sync::Arc, time::Instant};

/// One partition's handler as the runner sees it: payloads come as bytes, and what cannot be read is told apart from
/// what the handler says.
pub(crate) trait Work: 'static {
    /// The partition was assigned.
    fn assigned(&mut self, assignment: &Assignment) -> impl Future<Output = Result<(), TaskError>>;

    /// One attempt of one task.
    fn attempt(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> impl Future<Output = Result<(), Failure>>;

    /// The partition goes away.
    fn revoked(&mut self, deadline: Instant) -> impl Future<Output = ()>;
}

/// Makes the work of one partition; again after a panic.
pub(crate) type Factory<W> = Arc<dyn Fn(&Assignment) -> W + Send + Sync>;

/// Why an attempt did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The handler's own verdict.
    Handler(TaskError),
    /// The payload is not what the handler takes.
    Undecodable(String),
    /// No handler takes this type.
    UnknownType(String),
}

/// A single handler.
pub(crate) struct Single<H>(pub(crate) H);

impl<H: TaskHandler> Work for Single<H> {
    async fn assigned(&mut self, assignment: &Assignment) -> Result<(), TaskError> {
        self.0.assigned(assignment).await
    }

    async fn attempt(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), Failure> {
        let Task { id, type_name, content_type, size, payload } = task;
        let payload = decode::<H::Payload>(payload)?;
        let task = Task { id, type_name, content_type, size, payload };
        self.0.handle(task, ctx).await.map_err(Failure::Handler)
    }

    async fn revoked(&mut self, deadline: Instant) {
        self.0.revoked(deadline).await;
    }
}

/// Reads a payload. `Bytes` is the payload itself, although prost would read it as a `google.protobuf.BytesValue`.
fn decode<P: Message + Default + 'static>(payload: Bytes) -> Result<P, Failure> {
    let mut taken: Option<P> = None;
    if let Some(raw) = (&mut taken as &mut dyn Any).downcast_mut::<Option<Bytes>>() {
        *raw = Some(payload);
    } else {
        taken = Some(P::decode(payload).map_err(|error| Failure::Undecodable(error.to_string()))?);
    }
    Ok(taken.unwrap_or_default())
}

/// The task that an envelope and its plain payload make.
pub(crate) fn task(record: &Record, partition: u32, envelope: &mut Envelope, payload: Bytes) -> Task<Bytes> {
    let mut id = std::mem::take(&mut envelope.id);
    if id.is_empty() {
        id.reserve_exact(24);
        // Writing to a string does not fail.
        let _ = write!(id, "{partition}-{}", record.offset);
    }
    Task {
        id,
        type_name: envelope.r#type.take(),
        content_type: envelope.content_type.take(),
        size: envelope.payload_size,
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_payload_as_it_was_sent_and_messages_are_decoded() {
        let raw = Bytes::from_static(b"\x0a\x03abc");
        assert_eq!(decode::<Bytes>(raw.clone()).unwrap(), raw);
        assert_eq!(decode::<String>(raw).unwrap(), "abc");
        assert!(matches!(decode::<Envelope>(Bytes::from_static(b"\xff\xff")), Err(Failure::Undecodable(_))));
    }
}
