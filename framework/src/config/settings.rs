//! The catalogue of settings: every path that may be set, what its value looks like, and what it is for.

use super::kind::Kind;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its dotted path.
    pub path: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// A value as it may stand in a file.
    pub example: &'static str,
    /// What it is for, in a line.
    pub help: &'static str,
}

macro_rules! settings {
    ($($path:literal, $kind:expr, $example:literal, $help:literal;)*) => {
        &[$(Setting { path: $path, kind: $kind, example: $example, help: $help }),*]
    };
}

/// The library's settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = settings! {
    "log.kind", Kind::Choice(&["embedded", "kafka"]), "\"kafka\"", "The log: embedded (one process, files in a directory) or kafka.";
    "log.embedded.dir", Kind::Path, "\"partita-data/log\"", "The directory of the log's files. One process at a time.";
    "log.embedded.partitions", Kind::Integer, "16", "The number of partitions, fixed when the log is made.";
    "log.embedded.retention", Kind::Duration, "\"1h\"", "How long a task is kept after its offset was committed.";
    "log.embedded.append_timeout", Kind::Duration, "\"30s\"", "How long an append may take before its outcome is reported as unknown (504).";
    "log.embedded.idempotency_window", Kind::Duration, "\"24h\"", "How long an idempotency key is remembered at least.";
    "log.kafka.bootstrap_servers", Kind::Text, "\"broker-1:9092,broker-2:9092\"", "host:port of some brokers, separated by commas.";
    "log.kafka.topic", Kind::Text, "\"partita.tasks\"", "The task topic. Its parking topic is <topic>.parked.";
    "log.kafka.group", Kind::Text, "\"partita\"", "The consumer group.";
    "log.kafka.partitions", Kind::Integer, "16", "The number of partitions that keys are spread over; the topic must have exactly as many.";
    "log.kafka.replication_factor", Kind::Integer, "3", "For `topics create`. Unset: the smaller of 3 and the number of brokers.";
    "log.kafka.producers", Kind::Integer, "2", "Producers, each with its own connections, that the partitions are spread over.";
    "log.kafka.append_timeout", Kind::Duration, "\"30s\"", "How long an append may take before its outcome is reported as unknown (504).";
    "log.kafka.idempotency_window", Kind::Duration, "\"24h\"", "How long an idempotency key is remembered at least.";
    "log.kafka.idempotency_dir", Kind::Path, "\"partita-data/requests\"", "Where a front door keeps what it has read of the journal of requests. It may be lost.";
    "log.kafka.properties", Kind::Properties, "\"SASL_SSL\"", "librdkafka properties. One that would break a promise is refused.";
    "front_door.listen", Kind::Address, "\"127.0.0.1:8080\"", "Where tasks are taken.";
    "front_door.threads", Kind::Integer, "4", "HTTP threads. Unset: one for each core.";
    "front_door.body_timeout", Kind::Duration, "\"30s\"", "How long a body may go without a byte before it gets 408.";
    "front_door.compression", Kind::Choice(&["zstd", "none"]), "\"zstd\"", "Whether payloads that arrive uncompressed are stored compressed.";
    "front_door.compression_min", Kind::Size, "\"16KiB\"", "Smaller payloads are stored as they are.";
    "front_door.max_connections", Kind::Integer, "2500", "Connections at once. Further ones wait to be accepted. An idle one takes about 20 KiB beside the memory budget.";
    "front_door.min_body_rate", Kind::Size, "256", "Bytes a second that a body must come in with on average, once it was waited for 30 s. Lines may be slower. 0: any.";
    "front_door.tls_certificate", Kind::Path, "\"tls.crt\"", "The certificate's file, PEM. It and the key are read again when they have changed. Unset: no TLS.";
    "front_door.tls_key", Kind::Path, "\"tls.key\"", "The file of the certificate's private key, PEM.";
    "front_door.tls_client_ca", Kind::Path, "\"clients.crt\"", "Certificates, PEM, one of which must have signed a client's. Read again when it has changed. Unset: clients need none.";
    "front_door.cors_origins", Kind::Text, "\"https://app.example.com\"", "Origins, separated by commas, whose pages may use the front door from a browser, or *.";
    "front_door.token", Kind::Text, "\"…\"", "A token that may do everything, asked for as a bearer token. Unset, and no tokens_file: everybody may.";
    "front_door.tokens_file", Kind::Path, "\"tokens.toml\"", "Tokens, each with what it may do: see `partita token`. Read again when it has changed.";
    "front_door.backlog_tasks", Kind::Integer, "100000", "Tasks of one partition that may wait: above it the tasks of its keys get 503. Unset: any number.";
    "front_door.backlog_age", Kind::Duration, "\"15m\"", "How long the oldest of them may have waited. Unset: any time.";
    "admin.listen", Kind::Address, "\"127.0.0.1:8081\"", "Where operators and Prometheus ask.";
    "admin.token", Kind::Text, "\"…\"", "What operator verbs, and the payloads of parked tasks, ask for as a bearer token. Unset: nothing.";
    "memory.budget", Kind::Size, "\"512MiB\"", "All the bytes that tasks may occupy in this process. Below the default the binary gives freed memory back at once, which is slower.";
    "limits.max_task", Kind::Size, "\"100MB\"", "The largest payload of a task, without any compression.";
    "worker.threads", Kind::Integer, "4", "Threads that run the partition actors. Unset: one for each core.";
    "worker.queue_tasks", Kind::Integer, "4096", "Tasks that may wait for one partition's handler before the partition is paused.";
    "worker.queue_bytes", Kind::Size, "\"8MiB\"", "Bytes that may wait for one partition's handler before the partition is paused.";
    "worker.drain_timeout", Kind::Duration, "\"5s\"", "How long the task in hand may go on after its partition was revoked.";
    "worker.task_timeout", Kind::Duration, "\"1m\"", "How long one attempt of a task may take. Unset: as long as it likes.";
    "retry.attempts", Kind::Integer, "10", "Attempts of a task before it is parked.";
    "retry.backoff", Kind::Duration, "\"100ms\"", "The longest wait before the second attempt; it doubles with each further one.";
    "retry.backoff_max", Kind::Duration, "\"10s\"", "What the doubling stops at.";
    "retry.types", Kind::Properties, "\"attempts=3 backoff=1s backoff_max=1m\"", "What is different for a payload type, by its name.";
    "retry.breaker_tasks", Kind::Integer, "50", "Tasks of one partition that may be parked within the window; above it the partition waits. 0: no limit.";
    "retry.breaker_window", Kind::Duration, "\"1m\"", "The window of retry.breaker_tasks.";
    "commit.interval", Kind::Duration, "\"1s\"", "How often the offsets of finished tasks are committed.";
    "shutdown.deadline", Kind::Duration, "\"10s\"", "How long a stop in good order may take.";
};

/// Which setting a path names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named<'a> {
    /// A setting of the catalogue.
    Setting(&'a Setting),
    /// An entry of a [`Kind::Properties`] setting.
    Property(&'a Setting),
    /// A table that has settings below it.
    Section,
    /// Below `handler`, where the program has not said which settings it knows.
    Open,
    /// Nothing.
    Unknown,
}

/// The settings a loader knows: the library's and the program's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Catalogue {
    /// The settings below `handler`, where the program has said which there are.
    pub(super) handler: Option<&'static [Setting]>,
}

impl Catalogue {
    /// Every setting, in the order in which they are shown.
    pub(super) fn all(&self) -> impl Iterator<Item = &'static Setting> + use<> {
        SETTINGS.iter().chain(self.handler.unwrap_or_default())
    }

    /// What `path` names.
    pub(super) fn find(&self, path: &[String]) -> Named<'static> {
        let dotted = path.join(".");
        let below = |parent: &str| dotted.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'));
        for setting in self.all() {
            if setting.path == dotted {
                return if setting.kind == Kind::Properties {
                    Named::Section
                } else {
                    Named::Setting(setting)
                };
            }
            if setting.kind == Kind::Properties && below(setting.path) {
                return Named::Property(setting);
            }
        }
        let is_section = |setting: &Setting| {
            setting.path.strip_prefix(dotted.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        if dotted == "handler" || self.all().any(is_section) {
            Named::Section
        } else if self.handler.is_none() && below("handler") {
            Named::Open
        } else {
            Named::Unknown
        }
    }

    /// The known path that is nearest to an unknown one, if any is near.
    pub(super) fn nearest(&self, unknown: &str) -> Option<&'static str> {
        self.all()
            .map(|setting| (likeness(unknown, setting.path), setting.path))
            .filter(|(score, _)| *score >= 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, known)| known)
    }
}

/// How like two paths are. A slip in the section's name beats the right name in quite another section.
fn likeness(unknown: &str, known: &str) -> f64 {
    const OTHER_SECTION: f64 = 0.1;
    let (unknown_section, unknown_name) = unknown.rsplit_once('.').unwrap_or(("", unknown));
    let (known_section, known_name) = known.rsplit_once('.').unwrap_or(("", known));
    let names = strsim::jaro_winkler(unknown_name, known_name)
        .max(strsim::jaro_winkler(&sorted_words(unknown_name), &sorted_words(known_name)));
    if unknown_section == known_section {
        names
    } else {
        strsim::jaro_winkler(unknown, known).max(names - OTHER_SECTION) - OTHER_SECTION
    }
}

/// `max_backoff` and `backoff_max` are the same words.
fn sorted_words(name: &str) -> String {
    let mut words: Vec<_> = name.split(['_', '-']).collect();
    words.sort_unstable();
    words.join("_")
}
