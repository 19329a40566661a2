//! Run a handler as production runs it, in a unit test: the real actors over a log in memory, on one thread, without
//! waiting for anything: time passes as fast as nothing else is to be done.
//!
//! ```
//! use partita::{Task, TaskContext, TaskError, TaskHandler, testing::{self, TestPipeline}};
//!
//! struct Echo;
//!
//! impl TaskHandler for Echo {
//!     type Payload = bytes::Bytes;
//!     async fn handle(&mut self, task: Task<bytes::Bytes>, _: &TaskContext) -> Result<(), TaskError> {
//!         if task.payload.is_empty() { Err(TaskError::reject("nothing to say")) } else { Ok(()) }
//!     }
//! }
//!
//! testing::run(async {
//!     let pipeline = TestPipeline::start(|_| Echo).await;
//!     pipeline.send(("a", "hello")).await;
//!     pipeline.send(("a", "")).await;
//!     let settled = pipeline.settled().await;
//!     assert_eq!(settled.done(), 1);
//!     assert_eq!(settled.of("a")[1].reason(), Some("nothing to say"));
//! });
//! ```

mod pipeline;
mod scripted;
#[cfg(test)]
mod tests;

pub use pipeline::{Ended, Outcome, Settled, TestPipeline, TestTask};
pub use scripted::{ScriptedConsumer, ScriptedLog, Step};

use std::future::Future;

/// Runs a test inside an actix system, for tests that are not `#[actix_rt::test]`.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(test)
}
