//! Every setting, documented once, here. `partita config print` shows them with their defaults and where each came from.

mod file;
mod kind;
mod load;
mod origin;
mod print;
mod settings;
mod size;
#[cfg(test)]
mod tests;
mod validate;

pub use kind::Kind;
pub use load::{ConfigError, ENV_PREFIX, Layered, Loader};
pub use origin::Origin;
pub use print::is_secret;
pub use settings::{SETTINGS, Setting};

use bytesize::ByteSize;
use humantime_serde::re::humantime::parse_duration;
use partita_core::RetryPolicy;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

/// All settings of a process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which log, and where.
    pub log: LogConfig,
    /// The HTTP listener that takes tasks.
    pub front_door: FrontDoorConfig,
    /// The HTTP listener for operators.
    pub admin: AdminConfig,
    /// The one memory number.
    pub memory: MemoryConfig,
    /// What is refused for its size.
    pub limits: LimitsConfig,
    /// The actors' threads and queues.
    pub worker: WorkerConfig,
    /// What happens between the attempts of a task.
    pub retry: RetryConfig,
    /// When offsets are committed.
    pub commit: CommitConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
    /// The binary's handler. The library hands it through unread: an embedding program has its own handlers.
    pub handler: toml::Table,
}

/// `[log]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `embedded` (one process, a file) or `kafka`.
    pub kind: LogKind,
    /// Settings of the embedded log.
    pub embedded: EmbeddedConfig,
    /// Settings of the Kafka log.
    pub kafka: KafkaConfig,
}

/// The engines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// SQLite files in a directory, one process.
    #[default]
    Embedded,
    /// A Kafka cluster.
    Kafka,
}

/// How long idempotency keys are remembered.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[log.embedded]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The directory of the log's files. Made if it is not there. One process at a time.
    pub dir: PathBuf,
    /// The number of partitions, fixed when the log is made.
    pub partitions: u32,
    /// How long a task is kept after its offset was committed.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// How long an append may take before its outcome is reported as unknown (504).
    #[serde(with = "humantime_serde")]
    pub append_timeout: Duration,
    /// How long an idempotency key is remembered at least.
    #[serde(with = "humantime_serde")]
    pub idempotency_window: Duration,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            dir: "partita-data/log".into(),
            partitions: 16,
            retention: Duration::from_secs(3600),
            append_timeout: crate::log::DEFAULT_APPEND_TIMEOUT,
            idempotency_window: DAY,
        }
    }
}

/// `[log.kafka]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Comma-separated `host:port` of some brokers.
    pub bootstrap_servers: String,
    /// librdkafka properties, handed through to producer, consumer and admin client. One that would break a promise is refused.
    pub properties: BTreeMap<String, String>,
    /// The task topic. Its parking topic is `<topic>.parked`.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// The number of partitions that keys are spread over. The topic must have exactly as many.
    pub partitions: u32,
    /// For `topics create`: the replicas of each partition. Default: the smaller of 3 and the number of brokers.
    pub replication_factor: Option<u16>,
    /// How many producers, each with its own connections and threads, the task topic's partitions are spread over. Two carry tasks of
    /// 100 KB and more about a sixth faster than one; four carry small ones over 16 partitions of one broker a fifth to
    /// two fifths slower than two.
    pub producers: u32,
    /// How long an append may take before its outcome is reported as unknown (504).
    #[serde(with = "humantime_serde")]
    pub append_timeout: Duration,
    /// How long an idempotency key is remembered at least.
    #[serde(with = "humantime_serde")]
    pub idempotency_window: Duration,
    /// Where a front door keeps what it has read of the journal of requests, `<topic>.requests`. It may be lost: then all of it is read again.
    pub idempotency_dir: PathBuf,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".into(),
            properties: BTreeMap::new(),
            topic: "partita.tasks".into(),
            group: "partita".into(),
            partitions: 16,
            replication_factor: None,
            producers: 2,
            append_timeout: crate::log::DEFAULT_APPEND_TIMEOUT,
            idempotency_window: DAY,
            idempotency_dir: "partita-data/requests".into(),
        }
    }
}

/// `[front_door]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FrontDoorConfig {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// HTTP threads. Default: one for each core.
    pub threads: Option<usize>,
    /// How long a request may go without sending a byte of its body before it gets 408.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Whether payloads that arrive uncompressed are stored compressed.
    pub compression: CompressionMode,
    /// Payloads smaller than this are stored as they are.
    #[serde(with = "size")]
    pub compression_min: ByteSize,
    /// Connections at once. Further ones wait to be accepted. An idle one takes about 20 KiB beside the memory budget.
    pub max_connections: usize,
    /// What a body must come in with on average, in bytes a second, once it was waited for 30 s: a slower one gets 408. Lines may be slower.
    #[serde(with = "size")]
    pub min_body_rate: ByteSize,
    /// The certificate's file, PEM, with what links it to its root; with `tls_key`. Both are read again when they have changed. Unset: no TLS.
    pub tls_certificate: Option<PathBuf>,
    /// The file of the certificate's private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// A file of certificates, PEM, one of which must have signed a client's. Read again when it has changed. Unset: clients need none.
    pub tls_client_ca: Option<PathBuf>,
    /// The origins, separated by commas, whose pages may use the front door from a browser (CORS), or `*` for all. Empty: none.
    pub cors_origins: String,
    /// A token that may do everything, asked for as `Authorization: Bearer …`. Unset, and no `tokens_file`: everybody may.
    pub token: Option<String>,
    /// A file of tokens, each with what it may do. It is read again when it has changed.
    pub tokens_file: Option<PathBuf>,
    /// Tasks of one partition that may wait, stored and not ended: above it the tasks of its keys get 503. Unset: any number.
    pub backlog_tasks: Option<u64>,
    /// How long the oldest of them may have waited. Unset: any time.
    #[serde(with = "humantime_serde::option")]
    pub backlog_age: Option<Duration>,
}

/// What the front door does to an uncompressed payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionMode {
    /// Store it as zstd (level 1) where that saves space.
    #[default]
    Zstd,
    /// Store it as it came.
    None,
}

impl Default for FrontDoorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            threads: None,
            body_timeout: Duration::from_secs(30),
            compression: CompressionMode::Zstd,
            compression_min: ByteSize::kib(16),
            max_connections: 2_500,
            min_body_rate: ByteSize::b(256),
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
            cors_origins: String::new(),
            token: None,
            tokens_file: None,
            backlog_tasks: None,
            backlog_age: None,
        }
    }
}

/// `[admin]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// What operator verbs, and the payloads of parked tasks, ask for as `Authorization: Bearer …`. Unset: nothing.
    pub token: Option<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8081)), token: None }
    }
}

/// `[memory]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// All the bytes that tasks may occupy in this process, from socket to handler.
    #[serde(with = "size")]
    pub budget: ByteSize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { budget: ByteSize::mib(512) }
    }
}

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The largest payload of a task, without any compression.
    #[serde(with = "size")]
    pub max_task: ByteSize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_task: ByteSize::mb(100) }
    }
}

/// `[worker]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Threads that run the partition actors. Default: one for each core.
    pub threads: Option<usize>,
    /// Tasks that may wait for one partition's handler before the partition is paused.
    pub queue_tasks: u64,
    /// Bytes that may wait for one partition's handler before the partition is paused; one task may be larger.
    #[serde(with = "size")]
    pub queue_bytes: ByteSize,
    /// How long the task in hand may go on after its partition was revoked. Keep it well below `max.poll.interval.ms`.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// How long one attempt of a task may take. Unset: as long as it likes.
    #[serde(with = "humantime_serde::option")]
    pub task_timeout: Option<Duration>,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            threads: None,
            queue_tasks: 4096,
            queue_bytes: ByteSize::mib(8),
            drain_timeout: Duration::from_secs(5),
            task_timeout: None,
        }
    }
}

/// `[retry]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts of a task before it is parked.
    pub attempts: u32,
    /// The longest wait before the second attempt; it doubles with each further one. The wait is drawn between 0 and that ("full
    /// jitter").
    #[serde(with = "humantime_serde")]
    pub backoff: Duration,
    /// What the doubling stops at.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// For payload types, by name, what is to be different, as `"attempts=3 backoff=1s backoff_max=1m"`.
    pub types: BTreeMap<String, String>,
    /// Tasks of one partition that may be parked within `breaker_window`. Above it the partition waits, trying its task in hand again,
    /// until one succeeds. 0: no limit.
    pub breaker_tasks: u32,
    /// See `breaker_tasks`.
    #[serde(with = "humantime_serde")]
    pub breaker_window: Duration,
}

impl RetryConfig {
    /// For tasks of no particular type.
    pub fn policy(&self) -> RetryPolicy {
        RetryPolicy { attempts: self.attempts, backoff: self.backoff, backoff_max: self.backoff_max }
    }

    /// For each type that has its own, or what is wrong with one.
    pub fn policies(&self) -> Result<BTreeMap<String, RetryPolicy>, String> {
        let one = |(name, text): (&String, &String)| {
            let policy = self.different(text).map_err(|error| format!("{name:?} = {text:?}: {error}"))?;
            Ok((name.clone(), policy))
        };
        self.types.iter().map(one).collect()
    }

    fn different(&self, text: &str) -> Result<RetryPolicy, String> {
        let mut policy = self.policy();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or("write it as \"attempts=3 backoff=1s\"")?;
            let duration =
                || parse_duration(value).map_err(|error| format!("{value:?} is no duration: {error}"));
            match name {
                "attempts" => {
                    policy.attempts =
                        value.parse().map_err(|_| format!("{value:?} is no number of attempts"))?;
                }
                "backoff" => policy.backoff = duration()?,
                "backoff_max" => policy.backoff_max = duration()?,
                other => return Err(format!("{other:?} is not attempts, backoff or backoff_max")),
            }
        }
        if policy.attempts == 0 || policy.backoff > policy.backoff_max {
            return Err("at least 1 attempt, and no backoff above its backoff_max".into());
        }
        Ok(policy)
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 10,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            types: BTreeMap::new(),
            breaker_tasks: 50,
            breaker_window: Duration::from_secs(60),
        }
    }
}

/// `[commit]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommitConfig {
    /// How often the offsets of finished tasks are committed.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for CommitConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1) }
    }
}

/// `[shutdown]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long a stop in good order may take.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10) }
    }
}
