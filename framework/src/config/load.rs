//! Layers of settings: defaults < TOML file < environment < flags, and where each value came from.

use super::Config;
use std::{collections::BTreeMap, path::PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The program.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A command line flag.
    Flag(String),
}

/// A configuration and the origin of each value that is not a default, by its dotted path.
#[derive(Debug, Clone)]
pub struct Layered {
    /// The settings.
    pub config: Config,
    /// The origins.
    pub origins: BTreeMap<String, Origin>,
}

/// A configuration that is refused. Its message says where and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);
