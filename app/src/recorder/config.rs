//! `[handler.recorder]`

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
