//! The metrics recorder that the `partita` binary installs: measured programs pay for it too.

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use partita::metrics::CATALOGUE;
use std::time::Duration;

/// Installs it for the whole process, folding samples every second as the binary does.
pub fn install() -> Result<()> {
    let mut builder = PrometheusBuilder::new();
    for metric in CATALOGUE.iter().filter(|metric| !metric.kind.buckets().is_empty()) {
        builder =
            builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.kind.buckets())?;
    }
    let handle = builder.install_recorder().context("a metrics recorder is installed already")?;
    std::thread::Builder::new().name("metrics-upkeep".into()).spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            handle.run_upkeep();
        }
    })?;
    Ok(())
}
