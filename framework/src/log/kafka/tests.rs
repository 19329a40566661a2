//! Producer and consumer over librdkafka's mock cluster, within its limits (no admin API, no judge of duplicates).

use super::{
    client::{Context, OnError},
    delivery::{Delivery, Meters, Pending, TARGETS, Target},
    lend::Lender,
    native::{NativeConsumer, Polled},
    reports::Deliveries,
    settings::{Role, client_config},
};
use crate::{
    config::KafkaConfig,
    log::{AppendError, LogHealth, NewRecord, NotWritten, Receipt, Reply, TaskLog, kafka::KafkaLog},
    memory::MemoryPool,
};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use futures_util::FutureExt;
use partita_core::{CommitId, Offset, Partition};
use rdkafka::{
    error::RDKafkaErrorCode,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

const WITHIN: Duration = Duration::from_secs(20);

fn cluster() -> (MockCluster<'static, DefaultProducerContext>, KafkaConfig) {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("tasks", 2, 1).expect("a topic");
    cluster.create_topic("tasks.parked", 2, 1).expect("a topic");
    let config = KafkaConfig {
        bootstrap_servers: cluster.bootstrap_servers(),
        topic: "tasks".into(),
        partitions: 2,
        append_timeout: Duration::from_secs(5),
        ..KafkaConfig::default()
    };
    (cluster, config)
}

struct Writing {
    lender: Lender,
    pending: Arc<Pending>,
    meters: Arc<[Meters; TARGETS]>,
    said: Receiver<RDKafkaErrorCode>,
    parked: Receiver<Bytes>,
}

type Answer = crate::log::AppendFuture;

fn writing(config: &KafkaConfig) -> Writing {
    let role = Role::Producer { queue_bytes: 1 << 20 };
    let settings = client_config(config, role, 1 << 20).expect("accepted");
    let meters = Arc::new(Target::ALL.map(|target| Meters::new(&target.topic("tasks"))));
    let (errors, said) = crossbeam_channel::unbounded();
    let on_error: OnError = Arc::new(move |code, _| {
        let _ = errors.send(code);
    });
    let (spent, parked) = crossbeam_channel::unbounded();
    let deliveries = Deliveries::new(meters.clone(), Arc::<AtomicU64>::default(), spent);
    let lender = Lender::new(&settings, "tasks", Context::new(on_error), deliveries).expect("a producer");
    Writing { lender, pending: Arc::default(), meters, said, parked }
}

impl Writing {
    fn write(&self, partition: u32, value: Bytes) -> Answer {
        self.write_as(Target::Tasks, partition, value)
    }

    fn write_as(&self, target: Target, partition: u32, value: Bytes) -> Answer {
        let (reply, answer) = Reply::one();
        let pool = MemoryPool::new("intake", 64 << 20);
        let reservation = pool.try_reserve(value.len() as u64);
        let place = Partition(partition);
        let delivery = Delivery::new(target, place, value, reservation, &self.pending, reply);
        if let Err((code, delivery)) = self.lender.produce(b"key", Box::new(delivery)) {
            delivery.end(Err(super::producer::not_written(code)), &self.meters);
        }
        Box::pin(answer)
    }

    fn finish(&self) {
        let deadline = Instant::now() + WITHIN;
        while self.lender.held() > 0 {
            assert!(Instant::now() < deadline, "every record is answered");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn read(consumer: &NativeConsumer, count: usize) -> Vec<(Partition, Offset, Vec<u8>)> {
    let (deadline, mut found) = (Instant::now() + WITHIN, Vec::new());
    while found.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", found.len());
        if let Polled::Record(record) = consumer.poll(Duration::from_millis(50)) {
            found.push((record.partition(), record.offset(), record.value().to_vec()));
        }
    }
    found
}

fn consumer(config: &KafkaConfig) -> NativeConsumer {
    let role = Role::Consumer { prefetch_bytes: 16 << 20 };
    let settings = client_config(config, role, 1 << 20).expect("accepted");
    let consumer = NativeConsumer::new(&settings, &config.topic).expect("a consumer");
    consumer.assign(&[(Partition(0), Offset(0)), (Partition(1), Offset(0))]).expect("assigned");
    consumer
}

#[test]
fn records_are_stored_in_the_order_of_the_calls_and_read_back_byte_for_byte() {
    let (_cluster, config) = cluster();
    let writing = writing(&config);
    let sizes = [0, 1, 4096, 5000, 100_000];
    let value = |index: usize| Bytes::from(vec![index as u8; sizes[index % sizes.len()]]);
    let mut answers: Vec<_> = (0..50).map(|index| writing.write(1, value(index))).collect();
    writing.finish();
    for (index, answer) in answers.iter_mut().enumerate() {
        let receipt = answer.now_or_never().expect("answered").expect("written");
        assert_eq!(receipt, Receipt::new(Partition(1), Offset(index as u64)));
    }
    assert_eq!(writing.pending.count(), 0);
    for (index, (partition, offset, found)) in read(&consumer(&config), 50).into_iter().enumerate() {
        assert_eq!((partition, offset), (Partition(1), Offset(index as u64)));
        assert_eq!(found, value(index));
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_every_record_is_answered_when_the_producer_is_dropped() {
    let (cluster, config) = cluster();
    cluster.broker_down(1).expect("down");
    let writing = writing(&config);
    let mut answers: Vec<_> = (0..40).map(|_| writing.write(0, Bytes::from(vec![7; 200_000]))).collect();
    let refused = answers.iter_mut().filter_map(|answer| answer.now_or_never()).collect::<Vec<_>>();
    assert!(!refused.is_empty() && refused.len() < 40, "{} refused", refused.len());
    for answer in refused {
        assert!(matches!(answer, Err(AppendError::NotWritten { code: NotWritten::Busy, .. })), "{answer:?}");
    }
    let pending = writing.pending.clone();
    drop(writing);
    assert_eq!(pending.count(), 0, "the bytes are given back");
}

#[test]
fn a_record_that_never_left_is_not_written_when_its_time_is_over() {
    let (cluster, mut config) = cluster();
    config.append_timeout = Duration::from_secs(1);
    cluster.broker_down(1).expect("down");
    let writing = writing(&config);
    let answer = writing.write(0, Bytes::from_static(b"value"));
    writing.finish();
    let answer = answer.now_or_never().expect("answered");
    assert!(matches!(answer, Err(AppendError::NotWritten { code: NotWritten::Away, .. })), "{answer:?}");
}

#[test]
fn whether_a_record_that_a_broker_refused_was_written_depends_on_what_the_broker_said() {
    let broker_says = |error: RDKafkaRespErr| {
        let (cluster, mut config) = cluster();
        config.append_timeout = Duration::from_secs(1);
        cluster.request_errors(RDKafkaApiKey::Produce, &[error; 100]);
        let writing = writing(&config);
        let answer = writing.write(0, Bytes::from_static(b"value"));
        writing.finish();
        answer.now_or_never().expect("answered").expect_err("refused")
    };
    let unknown = |error| matches!(error, AppendError::Unknown { .. });
    // One that led the partition when it appended says no other than one that did not.
    assert!(unknown(broker_says(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION)));
    assert!(unknown(broker_says(RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR)));
    assert!(unknown(broker_says(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND)));
    assert!(!unknown(broker_says(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS)));
    assert!(!unknown(broker_says(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)));
}

#[test]
fn what_a_producer_that_is_dropped_gives_up_may_have_been_written_where_a_leader_disowned_it() {
    let (cluster, config) = cluster();
    let not_leader = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    cluster.request_errors(RDKafkaApiKey::Produce, &[not_leader; 100]);
    let writing = writing(&config);
    let started = Instant::now();
    let answer = writing.write(0, Bytes::from_static(b"value"));
    while !writing.lender.disowned(Partition(0), started) {
        assert!(started.elapsed() < WITHIN, "the broker is asked");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(writing);
    let answer = answer.now_or_never().expect("answered");
    assert!(matches!(answer, Err(AppendError::Unknown { .. })), "{answer:?}");
}

#[test]
fn a_record_for_a_partition_that_is_not_there_is_refused_and_answered_once() {
    let (_cluster, config) = cluster();
    let writing = writing(&config);
    // Whether there is such a partition is known once there was an answer from the cluster.
    let mut first = writing.write(0, Bytes::from_static(b"value"));
    writing.finish();
    assert!(first.as_mut().now_or_never().expect("answered").is_ok());
    let answer = writing.write(7, Bytes::from_static(b"value"));
    assert!(matches!(answer.now_or_never(), Some(Err(AppendError::NotWritten { .. }))));
    assert_eq!((writing.lender.held(), writing.pending.count()), (0, 0));
}

#[test]
fn the_value_of_a_parked_record_is_not_dropped_on_librdkafkas_thread() {
    let (_cluster, config) = cluster();
    let writing = writing(&config);
    drop((
        writing.write(0, Bytes::from_static(b"a task")),
        writing.write_as(Target::Parking, 0, "parked".into()),
    ));
    writing.finish();
    assert_eq!(writing.parked.try_iter().collect::<Vec<_>>(), ["parked"]);
}

#[test]
fn a_panic_of_one_who_waits_harms_no_other() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("woken");
        }
    }
    let (_cluster, config) = cluster();
    let writing = writing(&config);
    let values = 0..20_usize;
    let mut answers: Vec<_> = values.map(|_| writing.write(0, Bytes::from(vec![7; 20_000]))).collect();
    let waker = Arc::new(Panics).into();
    let waits = answers[10].as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending();
    writing.finish();
    for (index, answer) in answers.iter_mut().enumerate().filter(|(index, _)| !waits || *index != 10) {
        let receipt = answer.now_or_never().expect("answered").expect("written");
        assert_eq!(receipt, Receipt::new(Partition(0), Offset(index as u64)));
    }
    assert_eq!(writing.pending.count(), 0);
}

#[test]
fn a_broken_producer_says_so() {
    let (_cluster, config) = cluster();
    let writing = writing(&config);
    assert_eq!(writing.lender.fatal(), None);
    writing.lender.break_for_good();
    assert!(writing.lender.fatal().is_some());
    let mut said = std::iter::from_fn(|| writing.said.recv_timeout(WITHIN).ok());
    assert!(said.any(|code| code == RDKafkaErrorCode::Fatal), "it is heard of at once");
    let answer = writing.write(0, Bytes::from_static(b"value"));
    assert!(matches!(answer.now_or_never(), Some(Err(AppendError::NotWritten { .. }))));
}

#[test]
fn a_commit_is_answered_with_its_number_and_found_again() {
    let (_cluster, config) = cluster();
    let consumer = consumer(&config);
    consumer.commit(CommitId(42), &[(Partition(0), Offset(5), "beside".into())]).expect("sent");
    let deadline = Instant::now() + WITHIN;
    loop {
        assert!(Instant::now() < deadline, "the commit is answered");
        if let Polled::Committed { commit, partitions, error } = consumer.poll(Duration::from_millis(50)) {
            assert_eq!((commit, error), (CommitId(42), None));
            assert_eq!(partitions, vec![(Partition(0), None)]);
            break;
        }
    }
    let found = consumer.committed(&[Partition(0), Partition(1)], WITHIN).expect("answered");
    assert_eq!(found, vec![(Partition(0), Some((Offset(5), "beside".into()))), (Partition(1), None)]);
}

#[test]
fn waking_ends_a_poll_from_another_thread() {
    let (_cluster, config) = cluster();
    let consumer = Arc::new(consumer(&config));
    let waker = consumer.clone();
    let began = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        waker.wake();
    });
    while !matches!(consumer.poll(WITHIN), Polled::Nothing) {}
    assert!(began.elapsed() < WITHIN / 2, "woken after {:?}", began.elapsed());
    thread.join().expect("ends");
}

#[test]
fn a_log_whose_brokers_are_away_starts_and_refuses_at_once() {
    let config = KafkaConfig { bootstrap_servers: "127.0.0.1:1".into(), ..KafkaConfig::default() };
    let log = KafkaLog::connect(&config, 1 << 20, 1 << 20).expect("starts");
    assert!(matches!(log.health(), LogHealth::Away(_)));
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
    let began = Instant::now();
    let refused = futures_util::FutureExt::now_or_never(
        log.append(Partition(0), NewRecord { key, value, reservation: None, idempotency: None }),
    );
    assert!(matches!(refused, Some(Err(AppendError::NotWritten { code: NotWritten::Away, .. }))));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(futures_util::FutureExt::now_or_never(log.close()).is_some(), "nothing is waited for");
}
