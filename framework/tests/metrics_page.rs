//! METRICS.md is the catalogue, in words.

#[test]
fn metrics_md_says_what_the_catalogue_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../METRICS.md");
    let page = partita::metrics::markdown();
    if std::env::var_os("PARTITA_UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap();
    assert!(
        found == page,
        "METRICS.md is out of date: PARTITA_UPDATE=1 cargo test -p partita --test metrics_page"
    );
}

#[test]
fn only_gauges_carry_a_partition_label() {
    for metric in partita::metrics::CATALOGUE {
        let partition = metric.labels.contains(&"partition");
        assert!(!partition || metric.kind == partita::metrics::Kind::Gauge, "{}", metric.name);
    }
}
