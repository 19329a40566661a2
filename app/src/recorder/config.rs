//! `[handler.recorder]`

use partita::config::{ConfigError, Kind, Setting};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The binary's settings below `[handler]`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        path: "handler.recorder.dir",
        kind: Kind::Path,
        example: "\"partita-data/recordings\"",
        help: "Where recordings are written and read. Workers and front doors of a group share it.",
    },
    Setting {
        path: "handler.recorder.sync",
        kind: Kind::Bool,
        example: "true",
        help: "Whether a chunk is synced to disk before its task counts as done. false: a power loss may lose committed chunks.",
    },
];

/// `[handler.recorder]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RecorderConfig {
    /// Where recordings are.
    pub(crate) dir: PathBuf,
    /// Whether each chunk is synced before its task ends.
    pub(crate) sync: bool,
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self { dir: "partita-data/recordings".into(), sync: true }
    }
}

/// `[handler]` of this binary.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HandlerConfig {
    recorder: RecorderConfig,
}

/// The defaults, for the layers.
pub(crate) fn defaults() -> toml::Table {
    toml::Table::try_from(HandlerConfig::default()).unwrap_or_default()
}

impl RecorderConfig {
    /// Out of `[handler]`.
    pub(crate) fn read(handler: &toml::Table) -> Result<Self, ConfigError> {
        let handler: HandlerConfig = handler
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError(format!("handler: {}", error.message())))?;
        Ok(handler.recorder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_name_exactly_the_settings_of_the_catalogue() {
        let recorder = defaults()["recorder"].as_table().unwrap().clone();
        let names: Vec<_> = recorder.keys().map(|name| format!("handler.recorder.{name}")).collect();
        assert_eq!(names, SETTINGS.iter().map(|setting| setting.path).collect::<Vec<_>>());
        assert_eq!(RecorderConfig::read(&defaults()).unwrap(), RecorderConfig::default());
    }
}
