//! The dashboard names only what the catalogue has.

use partita::metrics::{CATALOGUE, Kind, Metric};
use serde_json::Value;
use std::collections::BTreeSet;

const DASHBOARD: &str = include_str!("../../grafana/dashboards/partita.json");
/// PromQL words that the dashboard uses.
const WORDS: &[&str] =
    &["sum", "max", "min", "topk", "rate", "increase", "histogram_quantile", "time", "vector", "by", "or"];
/// Labels that every sample has, from Prometheus itself.
const TARGET_LABELS: &[&str] = &["job", "instance"];

#[test]
fn the_dashboard_names_only_metrics_and_labels_of_the_catalogue() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    assert!(expressions.len() > 30, "{} expressions: is this the dashboard?", expressions.len());
    for expression in &expressions {
        assert_eq!(strangers(expression), Vec::<String>::new(), "in {expression}");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_reads_the_chosen_data_source() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert_eq!(dashboard["uid"], "partita-overview");
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{title}: no description");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let windowed = expression.contains("rate(") || expression.contains("increase(");
            assert!(
                !windowed || expression.contains("$__rate_interval") || expression.contains("[1h]"),
                "{title}"
            );
        }
    }
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
}

#[test]
fn a_name_outside_the_catalogue_is_noticed() {
    assert_eq!(strangers("sum(rate(partita_tasks_accepted_total[$__rate_interval]))"), Vec::<String>::new());
    for (wrong, name) in [
        ("sum(partita_tasks_lost_total)", "partita_tasks_lost_total"),
        ("partita_tasks_accepted_total_bucket", "partita_tasks_accepted_total_bucket"),
        ("sum by (key) (partita_consumer_lag_records)", "key"),
        ("partita_consumer_lag_records{key=\"x\"}", "key"),
        ("up", "up"),
        // A histogram has no sample of its bare name.
        ("partita_task_duration_seconds", "partita_task_duration_seconds"),
    ] {
        assert_eq!(strangers(wrong), [name], "in {wrong}");
    }
}

fn collect(value: &Value, expressions: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "expr" => expressions.push(text.clone()),
                    _ => collect(field, expressions),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, expressions)),
        _ => {}
    }
}

/// The words of a PromQL expression that are neither PromQL's, nor metrics of the catalogue, nor labels of the metrics named.
fn strangers(expression: &str) -> Vec<String> {
    let words = words(expression);
    let metrics: Vec<&Metric> = words.iter().filter_map(|word| metric(word)).collect();
    let label = |word: &str| {
        let own = metrics.iter().any(|metric| metric.labels.contains(&word));
        own || TARGET_LABELS.contains(&word) || (word == "le" && metrics.iter().any(|m| is_histogram(m)))
    };
    words
        .into_iter()
        .filter(|word| metric(word).is_none() && !WORDS.contains(&word.as_str()) && !label(word))
        .collect()
}

/// Identifiers, outside of quoted strings, variables and durations.
fn words(expression: &str) -> Vec<String> {
    let unquoted: String = expression.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    unquoted
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '$'))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        .map(str::to_owned)
        .collect()
}

fn metric(sample: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|metric| match sample.strip_prefix(metric.name) {
        Some("") => !is_histogram(metric),
        Some("_bucket" | "_sum" | "_count") => is_histogram(metric),
        _ => false,
    })
}

fn is_histogram(metric: &Metric) -> bool {
    !matches!(metric.kind, Kind::Counter | Kind::Gauge)
}
