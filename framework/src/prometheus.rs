//! A Prometheus recorder for the whole process whose histograms count instead of remembering.
//!
//! A histogram of metrics-exporter-prometheus keeps every sample until the next scrape or upkeep: at a million tasks a second
//! that is memory without a bound, and folding the samples costs as much as handling the tasks. Here a histogram of the
//! [catalogue](crate::metrics::CATALOGUE) is a row of counters, which a sample goes into at once. Everything else, also histograms of
//! the embedding program, is metrics-exporter-prometheus as it is.

use crate::{
    Error,
    metrics::{CATALOGUE, Metric, describe},
};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{
    LabelSet, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
    formatting::{write_help_line, write_metric_line, write_type_line},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// How often the samples of other histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder, describes the catalogue, and hands out the page. Call it once, before anything is recorded.
pub fn install() -> Result<Page, Error> {
    let rest = PrometheusBuilder::new().build_recorder();
    let page = Page { rest: rest.handle(), families: families() };
    let recorder = CountingRecorder { rest, families: page.families.clone() };
    metrics::set_global_recorder(recorder)
        .map_err(|error| Error::Recorder(format!("the metrics recorder cannot be installed: {error}")))?;
    describe();
    let upkeep = page.rest.clone();
    let keep = move || loop {
        thread::sleep(UPKEEP);
        upkeep.run_upkeep();
    };
    thread::Builder::new().name("metrics-upkeep".into()).spawn(keep).map_err(Error::Thread)?;
    Ok(page)
}

/// What Prometheus scrapes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Page {
    rest: PrometheusHandle,
    families: Arc<[Family]>,
}

impl Page {
    /// The page as it is now, in the text exposition format.
    pub fn render(&self) -> String {
        let mut page = self.rest.render();
        self.families.iter().for_each(|family| family.write(&mut page));
        page
    }
}

#[derive(Debug)]
struct CountingRecorder {
    rest: PrometheusRecorder,
    families: Arc<[Family]>,
}

/// One histogram of the catalogue, with a series for each set of labels.
#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    series: Mutex<Vec<(Key, Arc<Buckets>)>>,
}

fn families() -> Arc<[Family]> {
    let histograms = CATALOGUE.iter().filter(|metric| !metric.kind.buckets().is_empty());
    histograms.map(|metric| Family { metric, series: Mutex::default() }).collect()
}

impl Family {
    fn buckets(&self, key: &Key) -> Arc<Buckets> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, buckets)) = series.iter().find(|(known, _)| known == key) {
            return buckets.clone();
        }
        let buckets = Arc::new(Buckets::new(self.metric.kind.buckets()));
        series.push((key.to_retained(), buckets.clone()));
        buckets
    }

    fn write(&self, page: &mut String) {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if series.is_empty() {
            return;
        }
        let name = self.metric.name;
        write_help_line(page, name, None, None, self.metric.help);
        write_type_line(page, name, None, None, "histogram");
        for (key, buckets) in series.iter() {
            let labels = LabelSet::from_key_and_global(key, &Default::default());
            let mut count = 0;
            let bounds = buckets.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, counter) in bounds.zip(&buckets.counters) {
                count += counter.load(Relaxed);
                write_metric_line(page, name, Some("bucket"), &labels, Some(("le", bound)), count, None);
            }
            let sum = f64::from_bits(buckets.sum.load(Relaxed));
            write_metric_line::<&str, _>(page, name, Some("sum"), &labels, None, sum, None);
            write_metric_line::<&str, _>(page, name, Some("count"), &labels, None, count, None);
        }
        page.push('\n');
    }
}

impl Recorder for CountingRecorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.rest.describe_counter(name, unit, description);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.rest.describe_gauge(name, unit, description);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.rest.describe_histogram(name, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.rest.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.rest.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        match self.families.iter().find(|family| family.metric.name == key.name()) {
            Some(family) => Histogram::from_arc(family.buckets(key)),
            None => self.rest.register_histogram(key, metadata),
        }
    }
}

/// How many samples were at most each bound and above the one before, and the sum of all.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One more than there are bounds.
    counters: Vec<AtomicU64>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counters: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        // Not a number: in no bucket but the last, and in no sum.
        let added = if value.is_nan() { 0.0 } else { value * count as f64 };
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counters[bucket].fetch_add(count as u64, Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + added).to_bits());
        let _ = self.sum.fetch_update(Relaxed, Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{HTTP_REQUEST_BODY_BYTES, TASK_DURATION_SECONDS};

    #[test]
    fn a_sample_counts_in_each_bucket_that_it_is_not_above_and_in_sum_and_count() {
        let rest = PrometheusBuilder::new().build_recorder();
        let page = Page { rest: rest.handle(), families: families() };
        let recorder = CountingRecorder { rest, families: page.families.clone() };
        metrics::with_local_recorder(&recorder, || {
            let duration = metrics::histogram!(TASK_DURATION_SECONDS, "outcome" => "do\"ne");
            for seconds in [0.0005, 0.001, 0.02, 1e6] {
                duration.record(seconds);
            }
            metrics::histogram!(TASK_DURATION_SECONDS, "outcome" => "failed").record_many(0.5, 3);
            metrics::histogram!("of_the_embedding_program").record(1.0);
            metrics::counter!("some_total").increment(7);
        });
        let text = page.render();
        let line = |line: &str| assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        line("# TYPE partita_task_duration_seconds histogram");
        line("partita_task_duration_seconds_bucket{outcome=\"do\\\"ne\",le=\"0.001\"} 2");
        line("partita_task_duration_seconds_bucket{outcome=\"do\\\"ne\",le=\"0.025\"} 3");
        line("partita_task_duration_seconds_bucket{outcome=\"do\\\"ne\",le=\"900\"} 3");
        line("partita_task_duration_seconds_bucket{outcome=\"do\\\"ne\",le=\"+Inf\"} 4");
        line("partita_task_duration_seconds_count{outcome=\"do\\\"ne\"} 4");
        line("partita_task_duration_seconds_sum{outcome=\"do\\\"ne\"} 1000000.0215");
        line("partita_task_duration_seconds_bucket{outcome=\"failed\",le=\"0.5\"} 3");
        line("partita_task_duration_seconds_sum{outcome=\"failed\"} 1.5");
        line("some_total 7");
        assert!(text.contains("of_the_embedding_program{quantile="), "{text}");
        assert!(!text.contains(HTTP_REQUEST_BODY_BYTES), "nothing was recorded of it: {text}");
    }

    #[test]
    fn samples_from_several_threads_are_all_counted() {
        let buckets = Buckets::new(&[1.0, 2.0]);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| buckets.record(1.5)));
            }
        });
        assert_eq!(buckets.counters.iter().map(|c| c.load(Relaxed)).collect::<Vec<_>>(), [0, 40_000, 0]);
        assert_eq!(f64::from_bits(buckets.sum.load(Relaxed)), 60_000.0);
    }
}
