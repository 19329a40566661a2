//! Records that are not there any more: the partition halts and says what is lost, and goes on where an operator says. A topic that
//! is another one: nothing goes on.

use crate::created;
use anyhow::{Result, bail, ensure};
use partita_tests::{kafka::Kafka, server::Server, wait};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const PARTITIONS: u32 = 4;

async fn accept(server: &Server, tasks: std::ops::Range<u32>) -> u32 {
    let mut partition = 0;
    for task in tasks {
        partition = server.client().accept("key", format!("task {task}")).await.unwrap().partition;
    }
    partition
}

async fn until_recorded(server: &Server, chunks: usize) {
    wait::until("the tasks are recorded", SOON, async || {
        let recorded = server.client().recording("key").await?.map_or(0, |recording| recording.chunks.len());
        ensure!(recorded == chunks, "{recorded}");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

async fn halted(server: &Server, partition: u32) -> Result<Option<String>> {
    let status = server.partitions().await?;
    Ok(status.into_iter().find(|one| one.partition == partition).and_then(|one| one.halted))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_tasks_were_deleted_halts_and_goes_on_where_an_operator_says() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let server = setup.start().await.unwrap();
    let partition = accept(&server, 0..20).await;
    until_recorded(&server, 20).await;
    assert_eq!(server.stop(SOON).await.unwrap().code(), Some(0));

    // Ten tasks that nobody handles, and retention that takes six of them.
    let door = setup.clone().role("front-door").start().await.unwrap();
    accept(&door, 20..30).await;
    assert_eq!(door.stop(SOON).await.unwrap().code(), Some(0));
    let list = setup.home().join("delete.json");
    let places =
        format!(r#"{{"version":1,"partitions":[{{"topic":"tasks","partition":{partition},"offset":26}}]}}"#);
    std::fs::write(&list, places).unwrap();
    kafka.run(&["delete-records", "--offset-json-file", list.to_str().unwrap()]).unwrap();

    let server = setup.start().await.unwrap();
    let detail = wait::until("the partition is halted", SOON, async || halted(&server, partition).await);
    let detail = detail.await.unwrap();
    assert!(detail.contains("6 tasks were deleted") && detail.contains("partita rewind"), "{detail}");
    let refused = server.client().post("key", "one more").await.unwrap();
    assert_eq!(
        (refused.status, refused.json::<partita_tests::client::Problem>().unwrap().code),
        (503, "partition_stuck".into())
    );
    let others = server.partitions().await.unwrap();
    assert!(others.iter().all(|one| one.partition == partition || one.halted.is_none()));

    let number = partition.to_string();
    let admin = format!("http://{}", server.setup().admin());
    let arguments = ["rewind", "--partition", &number, "--to", "earliest", "--admin", &admin];
    let unasked = setup.command(&arguments).await.unwrap();
    assert!(unasked.code == Some(1) && unasked.said().contains("--yes"), "{}", unasked.said());
    assert!(unasked.said().contains("6 tasks are NEVER handled"), "{}", unasked.said());
    let done = setup.command(&[&arguments[..], &["--yes"]].concat()).await.unwrap();
    assert_eq!(done.code, Some(0), "{}", done.said());
    assert!(done.said().contains("from 20 to 26 of 30"), "{}", done.said());
    until_recorded(&server, 24).await;
    accept(&server, 30..31).await;
    until_recorded(&server, 25).await;
    assert!(server.log().contains("an operator's verb"), "the verb leaves a line");

    // The new offset holds for the next life, and a time is a place too.
    let server = server.kill().start().await.unwrap();
    accept(&server, 31..32).await;
    until_recorded(&server, 26).await;
    assert_eq!(halted(&server, partition).await.unwrap(), None);
    crate::committed_is_end(&kafka, PARTITIONS).await;
    let admin = format!("http://{}", server.setup().admin());
    let again = ["rewind", "--all", "--to", "2020-01-01T00:00:00Z", "--yes", "--admin", &admin];
    let again = setup.command(&again).await.unwrap();
    assert!(again.code == Some(0) && again.said().contains("6 tasks are handled again"), "{}", again.said());
    until_recorded(&server, 26).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_is_not_taken_for_the_former_one() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let server = setup.start().await.unwrap();
    accept(&server, 0..20).await;
    until_recorded(&server, 20).await;
    kafka.run(&["topics", "--delete", "--topic", "tasks"]).unwrap();
    wait::until("the topic is gone", SOON, async || {
        match kafka.run(&["topics", "--list"])?.lines().any(|line| line == "tasks") {
            true => bail!("it is there"),
            false => Ok(Some(())),
        }
    })
    .await
    .unwrap();
    let made = setup.command(&["topics", "create"]).await.unwrap();
    assert_eq!(made.code, Some(0), "{}", made.said());
    let reason = server.not_ready_or_gone(SOON).await;
    reason.unwrap();
    // Whatever it still accepts is not handled under offsets that meant other tasks.
    let readiness = server.readiness().await.unwrap();
    assert!(
        readiness.body.contains("made again") || readiness.body.contains("does not exist"),
        "{readiness:?}"
    );
    let refused = server.client().post("key", "to nobody").await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    server.is_sound().await.unwrap();
    let _ = server.stop(SOON).await;
}

/// Kafka drops a topic's offsets with it. There are others all the same: those of a commit that came late, or of a backup.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_of_a_former_topic_stays_that_ones_until_an_operator_has_spoken() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let door = setup.clone().role("front-door").start().await.unwrap();
    let partition = accept(&door, 0..25).await;
    assert_eq!(door.stop(SOON).await.unwrap().code(), Some(0));
    kafka.commit("tasks", partition, 20, "partita-mark-1 0 @the-former-one").unwrap();
    for _ in 0..2 {
        let server = setup.start().await.unwrap();
        let detail = wait::until("the partition is halted", SOON, async || halted(&server, partition).await);
        let detail = detail.await.unwrap();
        assert!(detail.contains("committed is 20, of a topic whose id was the-former-one"), "{detail}");
        until_recorded(&server, 0).await;
        assert_eq!(server.stop(SOON).await.unwrap().code(), Some(0));
    }
    let server = setup.start().await.unwrap();
    wait::until("the partition is halted", SOON, async || halted(&server, partition).await).await.unwrap();
    let admin = format!("http://{}", server.setup().admin());
    let number = partition.to_string();
    let arguments = ["rewind", "--partition", &number, "--to", "committed", "--yes", "--admin", &admin];
    let done = setup.command(&arguments).await.unwrap();
    assert!(done.code == Some(0) && done.said().contains("from 20 to 20 of 25"), "{}", done.said());
    until_recorded(&server, 5).await;
    let server = server.kill().start().await.unwrap();
    accept(&server, 25..26).await;
    until_recorded(&server, 6).await;
    assert_eq!(halted(&server, partition).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_retention_will_delete_unhandled_raise_an_alarm_in_time() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    kafka.run(&["configs", "--alter", "--topic", "tasks", "--add-config", "retention.ms=20000"]).unwrap();
    // The recorder cannot write: its tasks wait.
    let fences = setup.home().join("partita-data/recordings/.fences");
    std::fs::create_dir_all(fences.parent().unwrap()).unwrap();
    std::fs::write(&fences, "").unwrap();
    let server = setup.start().await.unwrap();
    accept(&server, 0..5).await;
    let began = std::time::Instant::now();
    let endangered = async || {
        anyhow::Ok(
            server.metrics().await?.sum("partita_partition_endangered_tasks").unwrap_or_default() as u64
        )
    };
    wait::until("the alarm", SOON, async || Ok((endangered().await? == 5).then_some(()))).await.unwrap();
    let after = began.elapsed();
    assert!((9..20).contains(&after.as_secs()), "after {after:?}, of 20 s that the tasks are kept");
    assert!(server.log().contains("retention may soon delete"));
    // Both mends end it: a longer retention, and the tasks' end.
    let keep = |ms: &str| {
        let setting = format!("retention.ms={ms}");
        kafka.run(&["configs", "--alter", "--topic", "tasks", "--add-config", &setting]).unwrap();
    };
    keep("-1");
    wait::until("the alarm's end", SOON, async || Ok((endangered().await? == 0).then_some(())))
        .await
        .unwrap();
    std::fs::remove_file(&fences).unwrap();
    until_recorded(&server, 5).await;
    wait::until("the alarm's end", SOON, async || Ok((endangered().await? == 0).then_some(())))
        .await
        .unwrap();
    server.is_sound().await.unwrap();
}
