//! `[handler]`: which of the binary's handlers there is, and their settings.

use crate::{push::PushConfig, recorder::RecorderConfig};
use partita::config::{ConfigError, Kind, Setting};
use serde::{Deserialize, Serialize};

const fn setting(path: &'static str, kind: Kind, example: &'static str, help: &'static str) -> Setting {
    Setting { path, kind, example, help }
}

/// The binary's settings below `[handler]`.
pub(crate) const SETTINGS: &[Setting] = &[
    setting(
        "handler.kind",
        Kind::Choice(&["recorder", "http"]),
        "\"http\"",
        "What is done with tasks: recorder (written to files and served) or http (delivered to a URL).",
    ),
    setting(
        "handler.recorder.dir",
        Kind::Path,
        "\"partita-data/recordings\"",
        "Where recordings are written and read. Workers and front doors of a group share it.",
    ),
    setting(
        "handler.recorder.sync",
        Kind::Bool,
        "true",
        "Whether a chunk is synced to disk before its task counts as done. false: a power loss may lose committed chunks.",
    ),
    setting(
        "handler.http.url",
        Kind::Text,
        "\"https://example.com/tasks\"",
        "Where tasks are delivered, as CloudEvents in binary mode. Needed with handler.kind = \"http\".",
    ),
    setting(
        "handler.http.timeout",
        Kind::Duration,
        "\"30s\"",
        "How long one delivery may take, its answer included.",
    ),
    setting(
        "handler.http.secret",
        Kind::Text,
        "\"whsec_…\"",
        "What deliveries are signed with (Standard Webhooks): whsec_ and base64; several with spaces while it is changed.",
    ),
];

/// The handlers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HandlerKind {
    #[default]
    Recorder,
    Http,
}

/// `[handler]` of this binary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HandlerConfig {
    pub(crate) kind: HandlerKind,
    pub(crate) recorder: RecorderConfig,
    pub(crate) http: PushConfig,
}

/// The defaults, for the layers.
pub(crate) fn defaults() -> toml::Table {
    toml::Table::try_from(HandlerConfig::default()).unwrap_or_default()
}

impl HandlerConfig {
    /// Out of the settings; an error says what is wrong with the handler that is chosen.
    pub(crate) fn read(handler: &toml::Table) -> Result<Self, ConfigError> {
        let handler: Self = handler
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError(format!("handler: {}", error.message())))?;
        if handler.kind == HandlerKind::Http {
            handler.http.check()?;
        }
        Ok(handler)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_name_no_setting_that_is_not_in_the_catalogue() {
        let known: Vec<_> = SETTINGS.iter().map(|setting| setting.path).collect();
        for (section, settings) in defaults() {
            let names: Vec<_> = match settings.as_table() {
                Some(settings) => settings.keys().map(|name| format!("handler.{section}.{name}")).collect(),
                None => vec![format!("handler.{section}")],
            };
            assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
        }
        assert_eq!(HandlerConfig::read(&defaults()).unwrap(), HandlerConfig::default());
    }

    #[test]
    fn a_push_handler_needs_a_url() {
        let read = |toml: &str| HandlerConfig::read(&toml.parse().unwrap()).map(|config| config.http.url);
        assert!(read("kind = \"http\"").unwrap_err().to_string().contains("handler.http.url"));
        for url in ["ftp://x/", "http//x", "x"] {
            let error = read(&format!("kind = \"http\"\nhttp.url = \"{url}\"")).unwrap_err();
            assert!(error.to_string().contains("handler.http.url"), "{error}");
        }
        let error = read("kind = \"http\"\nhttp.url = \"http://x/\"\nhttp.secret = \"hunter2\"").unwrap_err();
        assert!(error.to_string().contains("whsec_") && !error.to_string().contains("hunter2"), "{error}");
        assert_eq!(
            read("kind = \"http\"\nhttp.url = \"http://x/y\"").unwrap().as_deref(),
            Some("http://x/y")
        );
    }
}
