//! `[handler.http]`

use super::signature::Secrets;
use partita::config::ConfigError;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[handler.http]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PushConfig {
    /// Where tasks are delivered.
    pub(crate) url: Option<String>,
    /// How long one delivery may take, its answer included.
    #[serde(with = "humantime_serde")]
    pub(crate) timeout: Duration,
    /// What deliveries are signed with.
    pub(crate) secret: Option<String>,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self { url: None, timeout: Duration::from_secs(30), secret: None }
    }
}

impl PushConfig {
    /// Whether a handler could be made of it.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.parse().map(drop)
    }

    pub(super) fn parse(&self) -> Result<(Url, Secrets), ConfigError> {
        let wrong = |path: &str, what: String, help: &str| {
            Err(ConfigError(format!("handler.http.{path} {what}\nhelp: {help}")))
        };
        let help = "for example  url = \"https://example.com/tasks\"";
        let Some(url) = &self.url else {
            return wrong("url", "is not set, and handler.kind is \"http\"".into(), help);
        };
        let url = match Url::parse(url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => url,
            Ok(_) => return wrong("url", "does not begin with http:// or https:// and a host".into(), help),
            Err(error) => return wrong("url", format!("is no URL: {error}"), help),
        };
        if self.timeout.is_zero() {
            return wrong("timeout", "must be longer than 0".into(), "for example \"30s\"");
        }
        match Secrets::parse(self.secret.as_deref().unwrap_or_default()) {
            Ok(secrets) => Ok((url, secrets)),
            Err(help) => wrong("secret", "is none".into(), &help),
        }
    }
}
