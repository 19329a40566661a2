//! What every librdkafka client of this process shares: where its logs and errors go.

use crate::metrics::KAFKA_ERRORS_TOTAL;
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};
use std::sync::Arc;

/// Called with the errors that concern the whole client, from whatever thread polls it.
pub(super) type OnError = Arc<dyn Fn(RDKafkaErrorCode, &str) + Send + Sync>;

/// The context of a client: its log lines become `tracing` events, its errors are counted and handed on.
#[derive(Clone)]
pub(super) struct Context {
    on_error: OnError,
}

impl Context {
    pub(super) fn new(on_error: OnError) -> Self {
        Self { on_error }
    }

    /// For a client whose calls report their own errors.
    pub(super) fn quiet() -> Self {
        Self::new(Arc::new(|_, _| ()))
    }

    /// Counts an error, says it in the log and hands it on.
    pub(super) fn report(&self, code: RDKafkaErrorCode, reason: &str) {
        count(code);
        self.hand_on(code, reason);
    }

    /// Says an error that was counted in the log, and hands it on.
    pub(super) fn hand_on(&self, code: RDKafkaErrorCode, reason: &str) {
        tracing::debug!(target: "partita::kafka", ?code, reason, "librdkafka reports an error");
        (self.on_error)(code, reason);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.report(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), reason);
    }
}

/// Counts an error by librdkafka's name for it.
pub(super) fn count(code: RDKafkaErrorCode) {
    metrics::counter!(KAFKA_ERRORS_TOTAL, "code" => format!("{code:?}")).increment(1);
}

/// Passes one of librdkafka's log lines on. `CONFWARN` is what it says of a producer's property given to a consumer and the
/// other way round: one table of properties serves both, so it is expected.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if facility == "CONFWARN" {
        tracing::trace!(target: "partita::librdkafka", facility, "{message}");
        return;
    }
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "partita::librdkafka", facility, "{message}")
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "partita::librdkafka", facility, "{message}")
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "partita::librdkafka", facility, "{message}"),
    }
}
