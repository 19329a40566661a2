//! What settings must satisfy together.

use super::{Config, ConfigError, Layered, LogKind};
use crate::{Error, admin, memory::MemoryBudget};
use std::{net::Ipv6Addr, time::Duration};

/// Both logs store a task as one record, and neither can store a larger one: librdkafka's `message.max.bytes` and SQLite's
/// longest value both end at 10^9 bytes. A part of it is left for the envelope.
const LARGEST_TASK: u64 = 1_000_000_000 - (1 << 20);

/// Enough for any topic, and little enough to hold a table of.
const MOST_PARTITIONS: u32 = 100_000;

/// Each has threads and connections of its own.
const MOST_PRODUCERS: u32 = 64;

impl Config {
    /// Checks what the settings must satisfy together. Loading does this; a `Config` made by hand should be checked too.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(self).map_err(|(path, detail)| ConfigError(format!("{path}: {detail}")))?;
        check_kafka(self)
    }
}

impl Layered {
    /// Like [`Config::validate`], and says where the value came from.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check(&self.config).map_err(|(path, detail)| match detail.split_once('\n') {
            Some((first, rest)) => ConfigError(format!("{path}: {first} ({})\n{rest}", self.origin(path))),
            None => ConfigError(format!("{path}: {detail} ({})", self.origin(path))),
        })?;
        check_kafka(&self.config).map_err(|ConfigError(text)| {
            let place = self.origins.iter().find(|(path, _)| {
                let name = path.strip_prefix("log.kafka.properties.");
                name.is_some_and(|name| {
                    text.contains(&format!("{name} ")) || text.contains(&format!("{name}:"))
                })
            });
            match place {
                Some((_, origin)) => ConfigError(format!("{text} ({origin})")),
                None => ConfigError(text),
            }
        })
    }
}

/// What the Kafka log asks of its settings: the properties that it refuses, and why.
fn check_kafka(config: &Config) -> Result<(), ConfigError> {
    if config.log.kind != LogKind::Kafka {
        return Ok(());
    }
    match crate::log::kafka::verify(&config.log.kafka) {
        Err(Error::Config(error)) => Err(error),
        Err(other) => Err(ConfigError(other.to_string())),
        Ok(()) => Ok(()),
    }
}

/// The path at fault, with what is wrong and, after a line break, what to do.
type Finding = (&'static str, String);

fn ensure(holds: bool, path: &'static str, detail: impl FnOnce() -> String) -> Result<(), Finding> {
    if holds { Ok(()) } else { Err((path, detail())) }
}

fn check(config: &Config) -> Result<(), Finding> {
    check_sizes(config)?;
    check_log(config)?;
    check_times(config)?;
    check_counts(config)?;
    let is_blank = |token: &Option<String>| token.as_deref().is_some_and(|token| token.trim().is_empty());
    ensure(!is_blank(&config.admin.token), "admin.token", || {
        "is empty\nhelp: unset it to ask for none, or set a long random one".into()
    })?;
    ensure(!is_blank(&config.front_door.token), "front_door.token", || {
        "is empty\nhelp: unset it to ask for none, or set a long random one (`partita token`)".into()
    })?;
    let door = &config.front_door;
    check_origins(&door.cors_origins)?;
    ensure(door.max_connections > 0, "front_door.max_connections", || {
        "at least 1 is needed\nhelp: leave it unset for the default".into()
    })?;
    let is_open = admin::is_open_to_all(config.admin.listen, config.admin.token.as_deref());
    ensure(!is_open, "admin.listen", || admin::open_to_all(config.admin.listen))?;
    let (front_door, admin) = (config.front_door.listen, config.admin.listen);
    ensure(front_door != admin || admin.port() == 0, "admin.listen", || {
        format!("{admin} is the front door's address too\nhelp: give each listener a port of its own")
    })
}

fn check_origins(origins: &str) -> Result<(), Finding> {
    if origins.is_empty() || origins.trim() == "*" {
        return Ok(());
    }
    match origins.split(',').map(str::trim).find(|origin| !is_origin(origin)) {
        None => Ok(()),
        Some(origin) => Err((
            "front_door.cors_origins",
            format!(
                "{origin:?} is no origin as browsers send it\nhelp: write scheme and host in lower case, and a port that is not the scheme's own, as \
                 in \"https://app.example.com\"; several with commas, or \"*\""
            ),
        )),
    }
}

/// An origin as a browser writes it (RFC 6454, 6.2).
fn is_origin(origin: &str) -> bool {
    let (rest, own) = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
        (Some(rest), _) => (rest, "443"),
        (None, Some(rest)) => (rest, "80"),
        (None, None) => return false,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    let is_port =
        |port: &str| port != own && port.parse::<u16>().is_ok_and(|number| number.to_string() == port);
    (is_v6 || (!host.is_empty() && host.chars().all(is_name))) && port.is_none_or(is_port)
}

fn check_sizes(config: &Config) -> Result<(), Finding> {
    let max_task = config.limits.max_task.as_u64();
    ensure(max_task > 0, "limits.max_task", || {
        "0 would refuse every task\nhelp: the default is \"100MB\"".into()
    })?;
    ensure(max_task <= LARGEST_TASK, "limits.max_task", || {
        format!(
            "{max_task} bytes are more than a log can store as one record\nhelp: the most is {LARGEST_TASK}"
        )
    })?;
    MemoryBudget::divide(config.memory.budget.as_u64(), max_task)
        .map(|_| ())
        .map_err(|detail| ("memory.budget", detail.replacen("; raise", "\nhelp: raise", 1)))
}

fn check_log(config: &Config) -> Result<(), Finding> {
    let partitions = |path, count: u32| {
        ensure((1..=MOST_PARTITIONS).contains(&count), path, || {
            format!(
                "{count} partitions are not possible\nhelp: choose between 1 and {MOST_PARTITIONS}; the default is 16"
            )
        })
    };
    partitions("log.embedded.partitions", config.log.embedded.partitions)?;
    partitions("log.kafka.partitions", config.log.kafka.partitions)?;
    ensure(!config.log.embedded.dir.as_os_str().is_empty(), "log.embedded.dir", || {
        "the path is empty".into()
    })?;
    if config.log.kind != LogKind::Kafka {
        return Ok(());
    }
    let kafka = &config.log.kafka;
    ensure(!kafka.bootstrap_servers.trim().is_empty(), "log.kafka.bootstrap_servers", || {
        "no broker is named\nhelp: for example  bootstrap_servers = \"broker-1:9092\"".into()
    })?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let room = 249 - ".requests".len();
    let topic = &kafka.topic;
    let legal_topic =
        (1..=room).contains(&topic.len()) && topic.chars().all(legal) && topic != "." && topic != "..";
    ensure(legal_topic, "log.kafka.topic", || {
        format!("{topic:?} is no name for a topic\nhelp: use 1 to {room} of a-z, A-Z, 0-9, '.', '_' and '-'")
    })?;
    ensure(!kafka.group.is_empty(), "log.kafka.group", || {
        "the name is empty\nhelp: name the group, for example \"partita\"".into()
    })?;
    ensure(kafka.replication_factor != Some(0), "log.kafka.replication_factor", || {
        "0 replicas hold nothing\nhelp: leave it unset, or choose 3".into()
    })?;
    ensure((1..=MOST_PRODUCERS).contains(&kafka.producers), "log.kafka.producers", || {
        format!("{} producers cannot be had\nhelp: choose 1 to {MOST_PRODUCERS}", kafka.producers)
    })
}

fn check_times(config: &Config) -> Result<(), Finding> {
    let positive: [(&'static str, Duration); 9] = [
        ("commit.interval", config.commit.interval),
        ("shutdown.deadline", config.shutdown.deadline),
        ("log.kafka.append_timeout", config.log.kafka.append_timeout),
        ("log.embedded.append_timeout", config.log.embedded.append_timeout),
        ("log.kafka.idempotency_window", config.log.kafka.idempotency_window),
        ("log.embedded.idempotency_window", config.log.embedded.idempotency_window),
        ("front_door.body_timeout", config.front_door.body_timeout),
        ("retry.breaker_window", config.retry.breaker_window),
        ("worker.task_timeout", config.worker.task_timeout.unwrap_or(Duration::MAX)),
    ];
    for (path, duration) in positive {
        ensure(!duration.is_zero(), path, || "must be longer than 0\nhelp: for example \"1s\"".into())?;
    }
    let (drain, deadline) = (config.worker.drain_timeout, config.shutdown.deadline);
    ensure(drain < deadline, "worker.drain_timeout", || {
        format!(
            "{drain:?} is not below shutdown.deadline of {deadline:?}: a stop could not wait for the tasks in hand\nhelp: lower it, or raise shutdown.deadline"
        )
    })?;
    let max_poll = config.log.kafka.properties.get("max.poll.interval.ms").and_then(|text| text.parse().ok());
    let max_poll = Duration::from_millis(max_poll.unwrap_or(300_000));
    ensure(config.log.kind != LogKind::Kafka || drain * 2 <= max_poll, "worker.drain_timeout", || {
        format!("{drain:?} is more than half of max.poll.interval.ms ({max_poll:?})\nhelp: lower it")
    })?;
    ensure(config.retry.backoff <= config.retry.backoff_max, "retry.backoff", || {
        format!(
            "is above retry.backoff_max of {:?}\nhelp: lower it, or raise retry.backoff_max",
            config.retry.backoff_max
        )
    })
}

fn check_counts(config: &Config) -> Result<(), Finding> {
    let one = "at least 1 is needed\nhelp: leave it unset for the default";
    ensure(config.retry.attempts > 0, "retry.attempts", || one.into())?;
    if let Err(error) = config.retry.policies() {
        let help = "help: for example \"attempts=3 backoff=1s backoff_max=1m\"";
        return Err(("retry.types", format!("{error}\n{help}")));
    }
    ensure(config.worker.queue_tasks > 0, "worker.queue_tasks", || one.into())?;
    ensure(config.worker.queue_bytes.as_u64() > 0, "worker.queue_bytes", || one.into())?;
    ensure(config.worker.threads != Some(0), "worker.threads", || one.into())?;
    ensure(config.front_door.threads != Some(0), "front_door.threads", || one.into())
}
