//! A handler with a bug, and what an operator does about it: the task that fails is parked, its key waits behind it, the other keys
//! flow on; once the bug is mended the key's tasks are redriven, in order.
//!
//! ```sh
//! cargo run -p partita-examples --example park_and_redrive
//! curl -d 'poison' http://127.0.0.1:8080/v1/tasks/alice     # fails, and is parked
//! curl -d 'second' http://127.0.0.1:8080/v1/tasks/alice     # waits behind it
//! curl -d 'first'  http://127.0.0.1:8080/v1/tasks/bob       # is handled
//! partita parked list
//! touch mended                                              # the mend is deployed
//! partita parked redrive --key alice                        # poison, second
//! ```
//!
//! Settings come from the environment, as `PARTITA_LOG__KIND=kafka`.

use bytes::Bytes;
use partita::{Pipeline, Task, TaskContext, TaskError, TaskHandler, config::Loader};
use std::path::{Path, PathBuf};

struct Mailer {
    /// While it is not there, the handler has its bug.
    mended: PathBuf,
}

impl TaskHandler for Mailer {
    type Payload = Bytes;

    async fn handle(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        if task.payload.starts_with(b"poison") && !self.mended.exists() {
            return Err(TaskError::Park("this template cannot be rendered".into()));
        }
        tracing::info!(key = ctx.key_str(), offset = ctx.offset(), bytes = task.size, "handled");
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let config = Loader::new().environment(std::env::vars()).load()?.config;
    let handler = |_: &_| Mailer { mended: Path::new("mended").to_owned() };
    Ok(actix_rt::System::new().block_on(Pipeline::builder(config).handler(handler).run())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita::{
        ParkedSelection,
        testing::{self, TestPipeline},
    };

    #[test]
    fn a_key_goes_on_in_order_once_its_poison_is_redriven() {
        let dir = tempfile::tempdir().unwrap();
        let mended = dir.path().join("mended");
        testing::run(async {
            let path = mended.clone();
            let pipeline = TestPipeline::start(move |_| Mailer { mended: path.clone() }).await;
            for (key, payload) in [("alice", "poison"), ("alice", "second"), ("bob", "first")] {
                pipeline.send((key, payload)).await;
            }
            assert_eq!(pipeline.settled().await.done(), 1, "bob's");
            std::fs::write(&mended, "").unwrap();
            let alice = ParkedSelection::Key("alice".into());
            assert_eq!(pipeline.operations().redrive(&alice).unwrap().tasks, 2);
            let empty =
                |pipeline: &TestPipeline| pipeline.operations().list_parked(&alice).unwrap().is_empty();
            pipeline.wait_until("alice's tasks are handled", empty).await;
        });
    }
}
