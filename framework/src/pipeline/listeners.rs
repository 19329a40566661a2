//! The HTTP listeners of a pipeline: the front door and the operators' port.

use super::{Role, Shared};
use crate::Error;

/// Open listeners.
#[derive(Debug, Default)]
pub(crate) struct Listeners {}

/// Opens what the role needs.
pub(crate) async fn open(_shared: &Shared, _role: Role) -> Result<Listeners, Error> {
    Ok(Listeners::default())
}

impl Listeners {
    /// Takes no more tasks, and returns when those that were begun are answered.
    pub(crate) async fn stop_intake(&self) {}

    /// Closes what is still open.
    pub(crate) async fn close(self) {}
}
