//! How fast the actors are by themselves. Not a judgement: run it by hand and read the number.

use super::*;
use crate::log::TaskLog;
use partita_core::{Offset, Partition};
use std::time::Instant;

struct Nothing;

impl TaskHandler for Nothing {
    type Payload = Bytes;

    async fn handle(&mut self, _: Task<Bytes>, _: &TaskContext) -> Result<(), TaskError> {
        Ok(())
    }
}

#[test]
#[ignore = "a measurement"]
fn the_no_op_path_at_one_kilobyte() {
    const PARTITIONS: u32 = 8;
    const TASKS: usize = 40_000;
    crate::testing::run(async {
        let log = ScriptedLog::new(PARTITIONS);
        log.deliver_by_hand();
        let spawner = spawner(Arc::new(|_: &Assignment| Single(Nothing)));
        let arbiter = actix_rt::Arbiter::new();
        let pipeline = TestPipeline::over(log.clone(), config(), spawner, vec![arbiter.handle()]);
        for partition in 0..PARTITIONS {
            for _ in 0..TASKS {
                let record = TestTask::new("0123456789abcdef", vec![b'x'; 1024]).record();
                log.append(Partition(partition), record).await.unwrap();
            }
        }
        let all: Vec<u32> = (0..PARTITIONS).collect();
        log.assign(&all);
        pipeline.owns(&all).await;
        let before = processor_time(&arbiter).await;
        let began = Instant::now();
        for _ in 0..TASKS.div_ceil(1024) {
            for partition in 0..PARTITIONS {
                log.deliver(partition, 1024);
            }
        }
        let delivered = began.elapsed();
        let ended = |pipeline: &TestPipeline| {
            pipeline.status().partitions().iter().all(|status| status.queue_tasks == 0)
        };
        while !ended(&pipeline) {
            tokio::task::yield_now().await;
        }
        let took = began.elapsed();
        let after = processor_time(&arbiter).await;
        let tasks = f64::from(PARTITIONS) * TASKS as f64;
        println!(
            "{:.0} records/s; {:.3} µs of processor time a record on the arbiter; delivering took {delivered:?} of {took:?}",
            tasks / took.as_secs_f64(),
            (after - before) / 1e3 / tasks
        );
        pipeline.wait_until("all is committed", |pipeline| pipeline.log().is_settled()).await;
        assert_eq!(log.committed(0), Some(Offset(TASKS as u64)));
        arbiter.stop();
    });
}

/// The processor time that the arbiter's thread has had, in nanoseconds: it tells more than the clock on a busy machine.
async fn processor_time(arbiter: &actix_rt::Arbiter) -> f64 {
    let (tell, told) = tokio::sync::oneshot::channel();
    arbiter.spawn_fn(move || {
        let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let first = line.split(' ').next().and_then(|nanos| nanos.parse().ok());
        tell.send(first.unwrap_or(f64::NAN)).unwrap();
    });
    told.await.unwrap()
}
