//! A scrape of `/metrics`.

use std::collections::BTreeMap;

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Metrics(Vec<Sample>);

/// One line.
#[derive(Debug)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Metrics {
    /// Reads the text format. Label values with escapes are kept as they are written.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The samples of a name.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The sum over all labels; `None` if there is no sample.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.of(name).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// The sum over the samples with this label.
    pub fn sum_where(&self, name: &str, label: &str, value: &str) -> f64 {
        let labelled = |sample: &&Sample| sample.labels.get(label).is_some_and(|found| found == value);
        self.of(name).filter(labelled).map(|sample| sample.value).sum()
    }

    /// The names of all samples.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|sample| sample.name.as_str())
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let labels = labels
        .split("\",")
        .filter_map(|pair| pair.split_once("=\""))
        .map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect();
    Some(Sample { name: name.into(), labels, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_and_without_labels() {
        let metrics = Metrics::parse(
            "# HELP x y\nx_total 3\nlag{topic=\"a b\",partition=\"0\"} 2\nlag{topic=\"a b\",partition=\"1\"} 1.5\n",
        );
        assert_eq!(metrics.sum("x_total"), Some(3.0));
        assert_eq!(metrics.sum("lag"), Some(3.5));
        assert_eq!(metrics.sum("absent"), None);
        let partitions: Vec<_> = metrics.of("lag").map(|s| s.labels["partition"].as_str()).collect();
        assert_eq!(partitions, ["0", "1"]);
    }
}
