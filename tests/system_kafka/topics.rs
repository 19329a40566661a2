//! `topics create` and `check`, and what `serve` refuses.

use crate::{PARTITIONS, TOPIC, created};
use partita_tests::kafka::Kafka;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn topics_create_makes_both_topics_as_check_wants_them_and_alters_none() {
    let kafka = Kafka::up(1).unwrap();
    let setup = kafka.setup(TOPIC, PARTITIONS);
    let before = setup.command(&["check"]).await.unwrap();
    assert_eq!(before.code, Some(1), "{}", before.said());
    assert!(before.said().contains("partita topics create"), "{}", before.said());

    let made = setup.command(&["topics", "create"]).await.unwrap();
    assert_eq!(made.code, Some(0), "{}", made.said());
    let described = kafka.run(&["topics", "--describe"]).unwrap();
    for topic in ["tasks", "tasks.parked"] {
        let line = described.lines().find(|line| line.starts_with(&format!("Topic: {topic}\t"))).unwrap();
        assert!(line.contains("PartitionCount: 16"), "{line}");
        assert!(line.contains("cleanup.policy=delete"), "{line}");
        assert!(line.contains("max.message.bytes="), "{line}");
    }

    let after = setup.command(&["check"]).await.unwrap();
    assert_eq!(after.code, Some(0), "{}", after.said());
    assert!(after.stdout.contains("warn"), "one broker is a warning: {}", after.said());
    assert!(!after.stdout.contains("fail"), "{}", after.said());

    let again = setup.command(&["topics", "create"]).await.unwrap();
    assert_eq!(again.code, Some(0), "{}", again.said());
    assert!(again.said().contains("already"), "{}", again.said());
    assert_eq!(kafka.run(&["topics", "--describe"]).unwrap(), described);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_refuses_a_topic_that_would_break_a_promise_and_names_the_mend() {
    let kafka = Kafka::up(1).unwrap();
    let large = "max.message.bytes=104857600";
    kafka.run(&["create", "compacted", "16", "cleanup.policy=compact", large]).unwrap();
    kafka.run(&["create", "under-replicated", "16", "min.insync.replicas=2", large]).unwrap();
    kafka.run(&["create", "narrow", "8", large]).unwrap();
    for (topic, mend) in [
        ("missing", "partita topics create"),
        ("compacted", "cleanup.policy"),
        ("under-replicated", "min.insync.replicas"),
        ("narrow", "partitions"),
    ] {
        let mut server = kafka.setup(topic, PARTITIONS).spawn().unwrap();
        let status = server.ended(Duration::from_secs(60)).await;
        let said = server.log();
        assert_eq!(
            status.unwrap_or_else(|e| panic!("{topic}: {e:#}: {said}")).code(),
            Some(1),
            "{topic}: {said}"
        );
        assert!(said.contains(mend), "{topic}: {said}");
        let check = kafka.setup(topic, PARTITIONS).command(&["check"]).await.unwrap();
        assert_eq!(check.code, Some(1), "{topic}: {}", check.said());
        assert!(check.said().contains(mend), "{topic}: {}", check.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_would_break_a_promise_is_refused_with_the_reason() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    for (property, value) in [("acks", "1"), ("enable.idempotence", "false"), ("enable.auto.commit", "true")]
    {
        let setup =
            setup.clone().set(&format!("log.kafka.properties.\"{property}\""), format!("\"{value}\""));
        let finished = setup.command(&["serve"]).await.unwrap();
        assert_eq!(finished.code, Some(2), "{property}: {}", finished.said());
        assert!(finished.stderr.contains(property), "{property}: {}", finished.said());
    }
}
