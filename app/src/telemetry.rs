//! The metrics recorder of this binary: Prometheus, rendered on demand by the admin listener.

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use metrics_process::Collector;
use partita::metrics::{BUILD_INFO, CATALOGUE, describe};
use std::{sync::Arc, time::Duration};

/// How often samples of histograms are folded into their buckets: between scrapes they only pile up.
const UPKEEP: Duration = Duration::from_secs(1);

/// Installs the recorder for the whole process and gives the page.
pub(crate) fn install() -> anyhow::Result<Arc<dyn Fn() -> String + Send + Sync>> {
    let mut builder = PrometheusBuilder::new();
    for metric in CATALOGUE.iter().filter(|metric| !metric.kind.buckets().is_empty()) {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.kind.buckets())
            .with_context(|| format!("the buckets of {} are refused", metric.name))?;
    }
    let handle = builder.install_recorder().context("a metrics recorder is installed already")?;
    describe();
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let process = Collector::default();
    process.describe();
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics-upkeep".into())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP);
                upkeep.run_upkeep();
            }
        })
        .context("cannot start a thread")?;
    Ok(Arc::new(move || {
        process.collect();
        handle.render()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_build_process_and_histograms_with_buckets() {
        let page = install().unwrap();
        metrics::histogram!(partita::metrics::TASK_DURATION_SECONDS, "outcome" => "done").record(0.02);
        let text = page();
        assert!(
            text.contains(&format!("partita_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))),
            "{text}"
        );
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
        assert!(
            text.contains("partita_task_duration_seconds_bucket{outcome=\"done\",le=\"0.025\"} 1"),
            "{text}"
        );
        assert!(!text.contains("quantile="), "{text}");
    }
}
