//! The metrics of this binary: Partita's recorder and what the process itself uses, rendered on demand by the admin listener.

use metrics_process::Collector;
use partita::{metrics::BUILD_INFO, prometheus};
use std::sync::Arc;

/// Installs the recorder for the whole process and gives the page.
pub(crate) fn install() -> anyhow::Result<Arc<dyn Fn() -> String + Send + Sync>> {
    let page = prometheus::install()?;
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let process = Collector::default();
    process.describe();
    Ok(Arc::new(move || {
        process.collect();
        page.render()
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
