//! Tests that are held to how long small things take, and tests that keep the machine busy for long, within one process.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static BUSY: RwLock<()> = RwLock::const_new(());

/// Waits until no busy test runs, and holds those that come up.
pub async fn measured() -> RwLockWriteGuard<'static, ()> {
    BUSY.write().await
}

/// Waits until nothing is measured.
pub async fn busy() -> RwLockReadGuard<'static, ()> {
    BUSY.read().await
}
