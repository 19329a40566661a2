//! The smallest pipeline: one handler over the embedded log, with HTTP in front.
//!
//! `cargo run -p partita-examples --example hello`, then `curl -d Ada http://127.0.0.1:8080/v1/tasks/guests`.

use bytes::Bytes;
use partita::{Config, Error, Pipeline, Task, TaskContext, TaskError, TaskHandler};

struct Hello;

impl TaskHandler for Hello {
    type Payload = Bytes;

    async fn handle(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        let name = std::str::from_utf8(&task.payload).map_err(|_| TaskError::reject("a name is UTF-8"))?;
        eprintln!("{}: hello, {name}! (task {})", ctx.key_str(), task.id);
        Ok(())
    }
}

fn main() -> Result<(), Error> {
    let pipeline = Pipeline::builder(Config::default()).handler(|_| Hello);
    actix_rt::System::new().block_on(pipeline.run())
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita::testing::{self, TestPipeline};

    #[test]
    fn a_guest_with_a_name_is_greeted_and_one_without_is_turned_away() {
        testing::run(async {
            let pipeline = TestPipeline::start(|_| Hello).await;
            pipeline.send(("guests", "Ada")).await;
            pipeline.send(("guests", &b"\xff"[..])).await;
            pipeline.send(("guests", "Grace")).await;
            let settled = pipeline.settled().await;
            assert_eq!(settled.done(), 2);
            assert_eq!(settled.of("guests")[1].reason(), Some("a name is UTF-8"));
            assert_eq!(pipeline.committed("guests").map(|next| next.0), Some(3));
        });
    }
}
