//! The errors of a pipeline. Each says what to do.

use crate::config::ConfigError;

/// Why a pipeline did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong. Mend it and start again.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be used as it is; the text names the setting or command that mends it.
    #[error("{0}")]
    Log(String),
    /// A listener could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// There is no actix system on this thread.
    #[error(
        "a pipeline needs an actix system: start it inside #[actix_web::main] or actix_rt::System::block_on"
    )]
    NoSystem,
    /// There is a metrics recorder already.
    #[error("{0}")]
    Recorder(String),
    /// The log's client broke for good while serving.
    #[error("the log's client failed for good: {0}")]
    Fatal(String),
}
