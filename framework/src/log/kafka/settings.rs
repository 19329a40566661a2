//! The librdkafka properties: what Partita sets and why, what it lets through, and what it refuses with the reason.
//!
//! A property of `[log.kafka.properties]` goes to producer, consumer and admin client alike and wins over a default. Refused is
//! what a promise rests on: durability, order, explicit offsets, and the memory and size limits that have their own settings.

use super::disowned;
use crate::{Error, config::ConfigError, config::KafkaConfig};
use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError, types::RDKafkaConfRes};
use std::collections::BTreeMap;

/// What a record may have beside its payload: the envelope's other fields, the key, and a parked record's reason.
pub(super) const RECORD_ROOM: u64 = 1 << 20;

/// Refused under any value: each name with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("enable.idempotence", "retries would reorder and duplicate tasks"),
    (
        "enable.gapless.guarantee",
        "one task that cannot be written would stop all others; Partita reports each one's outcome",
    ),
    ("transactional.id", TRANSACTIONS),
    ("transaction.timeout.ms", TRANSACTIONS),
    ("message.timeout.ms", TIMEOUT),
    ("delivery.timeout.ms", TIMEOUT),
    ("request.timeout.ms", TIMEOUT),
    ("partitioner", PARTITIONER),
    ("partitioner_cb", PARTITIONER),
    ("sticky.partitioning.linger.ms", PARTITIONER),
    ("queuing.strategy", "another order than first in, first out would reorder tasks"),
    ("delivery.report.only.error", "every task is answered with its offset"),
    ("produce.offset.report", "every task is answered with its offset"),
    ("message.max.bytes", "limits.max_task decides it"),
    ("receive.message.max.bytes", "limits.max_task decides it"),
    ("queue.buffering.max.kbytes", MEMORY),
    ("queue.buffering.max.messages", MEMORY),
    ("queued.max.messages.kbytes", MEMORY),
    ("group.id", "set log.kafka.group"),
    ("bootstrap.servers", SERVERS),
    ("metadata.broker.list", SERVERS),
    ("enable.auto.commit", COMMIT),
    ("auto.commit.enable", COMMIT),
    ("auto.commit.interval.ms", COMMIT),
    ("enable.auto.offset.store", COMMIT),
    ("offset.store.method", COMMIT),
    ("offset.store.path", COMMIT),
    ("offset.store.sync.interval.ms", COMMIT),
    (
        "auto.offset.reset",
        "an offset that is not there must stop its partition, never skip or repeat tasks silently",
    ),
    ("enable.partition.eof", "the end of a partition is asked of the broker instead"),
    ("topic.blacklist", "the task topic must not be hidden"),
];

const ACKS: &str = "a task is acknowledged only when all in-sync replicas have it";
const TRANSACTIONS: &str =
    "the producer is idempotent, not transactional: a transaction's markers would look like lost tasks";
const TIMEOUT: &str = "set log.kafka.append_timeout";
const PARTITIONER: &str = "the key decides the partition in Partita's own code";
const MEMORY: &str = "memory.budget decides it";
const SERVERS: &str = "set log.kafka.bootstrap_servers";
const COMMIT: &str = "offsets are committed by Partita, after their tasks have ended (see commit.interval)";

/// Other names of one property. `properties` may use either; a default of Partita's must give way to both.
const ALIASES: &[(&str, &str)] = &[
    ("linger.ms", "queue.buffering.max.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("compression.codec", "compression.type"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("retries", "message.send.max.retries"),
];

/// The clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Appends.
    Producer {
        /// What may wait to be written.
        queue_bytes: u64,
    },
    /// Reads as a member of the group.
    Consumer {
        /// What may be fetched ahead.
        prefetch_bytes: u64,
    },
    /// Reads the parking topic, in no group.
    Lookup,
    /// Reads the journal of requests, in no group.
    Requests,
    /// Asks about topics, and nothing else.
    Admin,
}

/// The configuration of a client, or why it is refused.
pub(super) fn client_config(config: &KafkaConfig, role: Role, max_task: u64) -> Result<ClientConfig, Error> {
    verify(config)?;
    let record_max = max_task + RECORD_ROOM;
    let mut properties = common(config);
    match role {
        Role::Producer { queue_bytes } => producer(config, queue_bytes, record_max, &mut properties),
        Role::Consumer { prefetch_bytes } => consumer(config, prefetch_bytes, record_max, &mut properties),
        Role::Lookup => lookup(config, record_max, &mut properties),
        Role::Requests => requests(config, &mut properties),
        Role::Admin => {
            // A request that hangs must fail soon: this client is how a broker that is away is noticed.
            properties.insert("socket.timeout.ms".into(), "3000".into());
        }
    }
    let mut result = ClientConfig::new();
    result.set_log_level(RDKafkaLogLevel::Info);
    for (name, value) in overridden(properties, &config.properties) {
        result.set(name, value);
    }
    if let Role::Producer { .. } = role {
        // It is more than talk: some of a record's fate is said there alone.
        let asked = config.properties.get("debug").map_or("", String::as_str);
        result.set("debug", format!("{asked},{}", disowned::DEBUG).trim_start_matches(','));
    }
    if result.get("debug").is_some() {
        result.set_log_level(RDKafkaLogLevel::Debug);
    }
    Ok(result)
}

/// Refuses what would break a promise, what librdkafka does not know and what it does not accept.
pub(crate) fn verify(config: &KafkaConfig) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::Config(ConfigError(text)));
    if config.partitions == 0 || config.partitions > i32::MAX as u32 {
        return refuse("log.kafka.partitions must be at least 1".into());
    }
    if config.append_timeout.as_millis() < 1000 {
        return refuse("log.kafka.append_timeout must be at least 1s".into());
    }
    for (name, value) in &config.properties {
        if let Some(reason) = refusal(name, value) {
            return refuse(format!("log.kafka.properties: {name} = {value} is refused: {reason}"));
        }
        match ClientConfig::new().set(name, value).create_native_config() {
            Ok(_) => {}
            Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, reason, ..)) => {
                return refuse(format!("log.kafka.properties: {reason}{}", suggestion(name)));
            }
            Err(KafkaError::ClientConfig(_, reason, ..)) => {
                return refuse(format!("log.kafka.properties: {reason}"));
            }
            Err(error) => return refuse(format!("log.kafka.properties: {name}: {error}")),
        }
    }
    Ok(())
}

fn refusal(name: &str, value: &str) -> Option<&'static str> {
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Some(reason);
    }
    let off = matches!(value.trim().to_ascii_lowercase().as_str(), "false" | "f" | "0");
    match name {
        "max.in.flight" | "max.in.flight.requests.per.connection" => value
            .trim()
            .parse::<u64>()
            .is_ok_and(|requests| requests > 5)
            .then_some("more than 5 requests in flight cannot be kept in order"),
        "check.crcs" => off.then_some("a damaged record must be noticed"),
        "allow.auto.create.topics" => {
            (!off).then_some("a topic made by accident has the wrong settings: use `partita topics create`")
        }
        _ => None,
    }
}

fn suggestion(name: &str) -> String {
    super::native_config::property_names()
        .into_iter()
        .chain(ALIASES.iter().flat_map(|(one, other)| [(*one).to_owned(), (*other).to_owned()]))
        .map(|known| (strsim::damerau_levenshtein(name, &known), known))
        .filter(|(distance, known)| distance * 3 <= known.len() && refusal(known, "").is_none())
        .min()
        .map_or_else(String::new, |(_, known)| format!("; did you mean \"{known}\"?"))
}

fn common(config: &KafkaConfig) -> BTreeMap<String, String> {
    defaults(&[
        ("bootstrap.servers", &config.bootstrap_servers),
        ("client.id", "partita"),
        ("allow.auto.create.topics", "false"),
        ("socket.keepalive.enable", "true"),
        ("socket.nagle.disable", "true"),
        // A broker that is back is found within a second, not within ten.
        ("reconnect.backoff.ms", "50"),
        ("reconnect.backoff.max.ms", "1000"),
        ("socket.connection.setup.timeout.ms", "5000"),
    ])
}

fn producer(config: &KafkaConfig, queue_bytes: u64, record_max: u64, out: &mut BTreeMap<String, String>) {
    let timeout = config.append_timeout.as_millis();
    out.extend(defaults(&[
        ("enable.idempotence", "true"),
        ("acks", "all"),
        // A lone task is sent at once; many at once fill a batch while the previous request is on its way.
        ("queue.buffering.max.ms", "0"),
        // A broker works off one request of a connection at a time, its replication included. One more keeps it busy; what waits behind
        // that here, not there, still joins a batch: ADR 33.
        ("max.in.flight", "2"),
        ("message.max.bytes", &record_max.to_string()),
        ("message.timeout.ms", &timeout.to_string()),
        ("request.timeout.ms", &timeout.min(30_000).to_string()),
        ("retry.backoff.ms", "50"),
        ("queue.buffering.max.kbytes", &kbytes(queue_bytes.max(record_max))),
        // Bytes are what is bounded.
        ("queue.buffering.max.messages", "0"),
    ]));
}

fn consumer(config: &KafkaConfig, prefetch_bytes: u64, record_max: u64, out: &mut BTreeMap<String, String>) {
    // A fetch begins while less than `queued` waits, so fetched bytes reach `queued` and one response of each broker.
    // More than that is fetched no faster, and every byte of it lands in memory that is cold again.
    let queued = (prefetch_bytes / 2).clamp(1 << 20, 32 << 20);
    let response = (prefetch_bytes / 4).clamp(1 << 20, 64 << 20);
    // Few partitions are fetched best in the client's own portions; many cost the broker's thread less in larger ones.
    let portion = (u64::from(config.partitions) << 16).clamp(1 << 20, 8 << 20);
    let partition = (response / 4).clamp(1 << 20, portion);
    out.extend(defaults(&[
        ("group.id", &config.group),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        // Every start is an explicit offset; one that is not there is an error.
        ("auto.offset.reset", "error"),
        ("check.crcs", "true"),
        // The default of a second stalls a consumer whose queue was full for a moment.
        ("fetch.queue.backoff.ms", "10"),
        ("fetch.error.backoff.ms", "100"),
        // A partition that is assigned or resumed is fetched once the request before it is answered, which waits this long when
        // the others have nothing new: the other half of a clean handover.
        ("fetch.wait.max.ms", "250"),
        ("queued.min.messages", "1000000"),
        ("queued.max.messages.kbytes", &kbytes(queued)),
        ("fetch.max.bytes", &response.to_string()),
        ("fetch.message.max.bytes", &partition.to_string()),
        // The broker sends a record that is larger than the limits above, alone.
        ("receive.message.max.bytes", &(record_max.max(response) + RECORD_ROOM).to_string()),
    ]));
    if config.properties.get("group.protocol").map(String::as_str) != Some("consumer") {
        out.extend(defaults(&[
            ("partition.assignment.strategy", "cooperative-sticky"),
            // How long a killed worker's partitions stand still.
            ("session.timeout.ms", "10000"),
            // A member hears of a rebalance with its next heartbeat: half of how long a clean handover takes.
            ("heartbeat.interval.ms", "300"),
        ]));
    }
}

fn lookup(config: &KafkaConfig, record_max: u64, out: &mut BTreeMap<String, String>) {
    out.extend(defaults(&[
        // It is never joined: a client that is given partitions by hand has to name one all the same.
        ("group.id", &config.group),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        // What was deleted from the front is gone: what is left is read.
        ("auto.offset.reset", "earliest"),
        ("check.crcs", "true"),
        // At the end of one journal it is not to wait before it turns to another.
        ("fetch.wait.max.ms", "10"),
        ("fetch.error.backoff.ms", "100"),
        ("queued.max.messages.kbytes", "1024"),
        ("fetch.max.bytes", &(1 << 20).to_string()),
        ("fetch.message.max.bytes", &(1 << 20).to_string()),
        // As for the worker: a record that is larger comes alone. A parked record has its reason beside it.
        ("receive.message.max.bytes", &(record_max + 3 * RECORD_ROOM).to_string()),
    ]));
}

/// Small records that are to be heard of at once, and at their end nothing.
fn requests(config: &KafkaConfig, out: &mut BTreeMap<String, String>) {
    out.extend(defaults(&[
        // As for the lookup.
        ("group.id", &config.group),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("check.crcs", "true"),
        ("fetch.wait.max.ms", "500"),
        ("fetch.error.backoff.ms", "50"),
        ("fetch.queue.backoff.ms", "10"),
        ("queued.max.messages.kbytes", "2048"),
        ("fetch.max.bytes", &(1 << 20).to_string()),
        ("fetch.message.max.bytes", &(256 << 10).to_string()),
    ]));
}

fn kbytes(bytes: u64) -> String {
    (bytes / 1024).clamp(1, 2_097_151).to_string()
}

fn defaults(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn overridden(
    mut properties: BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    for (name, value) in given {
        for (one, other) in ALIASES {
            if name == one {
                properties.remove(*other);
            } else if name == other {
                properties.remove(*one);
            }
        }
        properties.insert(name.clone(), value.clone());
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(properties: &[(&str, &str)]) -> KafkaConfig {
        KafkaConfig { properties: defaults(properties), ..KafkaConfig::default() }
    }

    fn refused(name: &str, value: &str) -> String {
        verify(&config(&[(name, value)])).expect_err(name).to_string()
    }

    const ROLES: [Role; 5] = [
        Role::Producer { queue_bytes: 64 << 20 },
        Role::Consumer { prefetch_bytes: 128 << 20 },
        Role::Lookup,
        Role::Requests,
        Role::Admin,
    ];

    #[test]
    fn what_would_break_a_promise_is_refused_with_its_reason_by_every_name_it_has() {
        for (name, reason) in REFUSED {
            let text = refused(name, "1");
            assert!(text.contains(name) && text.contains(reason), "{text}");
        }
        assert!(refused("max.in.flight", "6").contains("in order"));
        assert!(refused("max.in.flight.requests.per.connection", "1000").contains("in order"));
        assert!(refused("check.crcs", "false").contains("damaged"));
        assert!(refused("allow.auto.create.topics", "true").contains("topics create"));
    }

    #[test]
    fn every_refused_name_is_one_that_librdkafka_knows() {
        for (name, _) in REFUSED {
            let known = ClientConfig::new().set(*name, "1").create_native_config();
            let unknown =
                matches!(known, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)));
            assert!(!unknown, "{name}");
        }
    }

    #[test]
    fn an_unknown_property_is_refused_and_the_nearest_known_one_named() {
        let text = refused("compresion.type", "zstd");
        assert!(text.contains("compresion.type") && text.contains("\"compression.type\""), "{text}");
        assert!(refused("socket.keepalive.enable", "perhaps").contains("socket.keepalive.enable"));
    }

    #[test]
    fn the_defaults_are_accepted_by_librdkafka_for_every_client_and_protocol() {
        for protocol in ["classic", "consumer"] {
            let config = config(&[("group.protocol", protocol)]);
            for role in ROLES {
                let settings = client_config(&config, role, 100_000_000).expect("accepted");
                let kind = match role {
                    Role::Consumer { .. } | Role::Lookup | Role::Requests => {
                        rdkafka::types::RDKafkaType::RD_KAFKA_CONSUMER
                    }
                    _ => rdkafka::types::RDKafkaType::RD_KAFKA_PRODUCER,
                };
                let native = settings.create_native_config().expect("known");
                let context = super::super::client::Context::quiet();
                rdkafka::client::Client::new(&settings, native, kind, context).expect(protocol);
            }
        }
    }

    #[test]
    fn two_requests_are_in_flight_where_nothing_else_is_asked_for() {
        let producer = client_config(&config(&[]), ROLES[0], 1 << 20).expect("accepted");
        assert_eq!(producer.create_native_config().expect("known").get("max.in.flight").expect("known"), "2");
    }

    #[test]
    fn a_given_property_replaces_the_default_under_either_of_its_names() {
        let in_flight = "max.in.flight.requests.per.connection";
        let config = config(&[("linger.ms", "5"), ("session.timeout.ms", "20000"), (in_flight, "5")]);
        let producer = client_config(&config, ROLES[0], 1 << 20).expect("accepted");
        assert_eq!((producer.get("linger.ms"), producer.get("queue.buffering.max.ms")), (Some("5"), None));
        let native = producer.create_native_config().expect("known");
        assert_eq!(native.get("queue.buffering.max.ms").expect("known").parse::<f64>(), Ok(5.0));
        assert_eq!(
            (producer.get("max.in.flight"), native.get("max.in.flight").expect("known")),
            (None, "5".into())
        );
        let consumer = client_config(&config, ROLES[1], 1 << 20).expect("accepted");
        assert_eq!(consumer.get("session.timeout.ms"), Some("20000"));
    }

    #[test]
    fn a_producer_has_the_debug_lines_it_listens_to_whatever_others_are_asked_for() {
        let debug = |role, asked: &[(&str, &str)]| {
            let settings = client_config(&config(asked), role, 1 << 20).expect("accepted");
            let native = settings.create_native_config().expect("known");
            (settings.log_level as i32, native.get("debug").expect("known"))
        };
        let (all, some) = (RDKafkaLogLevel::Debug as i32, RDKafkaLogLevel::Info as i32);
        for asked in ["broker", "all,-topic"] {
            let (level, lines) = debug(ROLES[0], &[("debug", asked)]);
            assert!(level == all && lines.split(',').any(|line| line == "topic"), "{lines}");
        }
        assert_eq!(debug(ROLES[0], &[]), (all, "topic".into()));
        assert_eq!(debug(ROLES[1], &[]), (some, String::new()));
        assert_eq!(debug(ROLES[1], &[("debug", "cgrp")]), (all, "cgrp".into()));
    }

    #[test]
    fn librdkafka_is_built_with_what_clusters_ask_for() {
        let features = ClientConfig::new()
            .create_native_config()
            .expect("empty")
            .get("builtin.features")
            .expect("known");
        for feature in
            ["gzip", "snappy", "lz4", "zstd", "ssl", "sasl_plain", "sasl_scram", "sasl_oauthbearer"]
        {
            assert!(features.split(',').any(|built| built == feature), "{feature} is not in {features}");
        }
    }
}
