//! A worker over Kafka: a prost payload, a conditional write with the fence, and every way a task can end.
//!
//! With `PARTITA_LOG__KIND=kafka` and `PARTITA_LOG__KAFKA__BOOTSTRAP_SERVERS` in the environment: `partita topics create`, then
//! `partita serve --role front-door`, and beside it, each admin listener at an address of its own,
//! `PARTITA_ADMIN__LISTEN=127.0.0.1:8082 cargo run -p partita-examples --example kafka_worker`.

use partita::{
    Assignment, Fence, Pipeline, Role, Task, TaskContext, TaskError, TaskHandler,
    config::{Loader, LogKind},
};
use std::{collections::HashMap, time::Duration};

/// A reading of a meter, in the unit that the meter counts.
#[derive(Clone, PartialEq, prost::Message)]
struct Reading {
    #[prost(double, tag = "1")]
    value: f64,
}

/// Stands for a database with a conditional write: it keeps the fence of each meter's last write.
#[derive(Default)]
struct Database {
    rows: HashMap<Vec<u8>, (Fence, f64)>,
    is_away: bool,
}

impl Database {
    /// Writes unless the row has seen this task, or one of a later owner.
    fn write(&mut self, key: &[u8], fence: Fence, value: f64) -> Result<(), TaskError> {
        if self.is_away {
            let retry_after = Some(Duration::from_secs(1));
            return Err(TaskError::Unavailable { dependency: "database".into(), retry_after });
        }
        if self.rows.get(key).is_none_or(|(last, _)| fence.is_newer_than(last)) {
            self.rows.insert(key.to_vec(), (fence, value));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Meters {
    database: Database,
}

impl TaskHandler for Meters {
    type Payload = Reading;

    async fn assigned(&mut self, assignment: &Assignment) -> Result<(), TaskError> {
        tracing::info!(partition = assignment.partition(), epoch = assignment.epoch(), "assigned");
        Ok(())
    }

    async fn handle(&mut self, task: Task<Reading>, ctx: &TaskContext) -> Result<(), TaskError> {
        let value = task.payload.value;
        if !value.is_finite() {
            return Err(TaskError::reject("a reading is a finite number"));
        }
        self.database.write(ctx.key(), ctx.fence(), value)?;
        tracing::info!(meter = ctx.key_str(), value, attempt = ctx.attempt(), "stored");
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut config = Loader::new().environment(std::env::vars()).load()?.config;
    config.log.kind = LogKind::Kafka;
    let pipeline = Pipeline::builder(config).role(Role::Worker).handler(|_| Meters::default());
    Ok(actix_rt::System::new().block_on(pipeline.run())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita::testing::{self, TestPipeline};
    use prost::Message;

    #[test]
    fn a_reading_is_stored_and_one_that_is_no_number_is_put_aside() {
        testing::run(async {
            let pipeline = TestPipeline::start(|_| Meters::default()).await;
            for value in [1.5, f64::NAN, 2.5] {
                pipeline.send(("meter-1", Reading { value }.encode_to_vec())).await;
            }
            let settled = pipeline.settled().await;
            assert_eq!(settled.done(), 2);
            assert_eq!(settled.of("meter-1")[1].reason(), Some("a reading is a finite number"));
        });
    }

    #[test]
    fn a_write_of_a_former_owner_and_a_redelivery_change_nothing() {
        let fence =
            |topic: &str, epoch, offset| Fence { topic_id: topic.into(), partition: 0, epoch, offset };
        let mut database = Database::default();
        for (epoch, offset, value) in [(2, 7, 1.0), (1, 8, 2.0), (2, 7, 3.0), (3, 6, 4.0), (3, 7, 5.0)] {
            database.write(b"meter", fence("t", epoch, offset), value).unwrap();
        }
        assert_eq!(database.rows[&b"meter"[..]].1, 1.0);
        database.write(b"meter", fence("t", 2, 8), 6.0).unwrap();
        assert_eq!(database.rows[&b"meter"[..]].1, 6.0);
        // The topic was made anew: its offsets begin at 0 again.
        database.write(b"meter", fence("u", 1, 0), 7.0).unwrap();
        assert_eq!(database.rows[&b"meter"[..]].1, 7.0);
    }
}
