//! The file layer: a TOML document as single values, each with its line.

use super::{ConfigError, Origin, load::Entry};
use std::path::Path;
use toml::{
    Value,
    de::{DeTable, DeValue},
};

/// Reads the file's values, in the order of their paths.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError(format!(
            "cannot read the configuration file {}: {error}\nhelp: check the path that --config (or PARTITA_CONFIG) gives",
            path.display()
        ))
    })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        ConfigError(format!("{}:{line}: {}\nhelp: the file must be TOML", path.display(), error.message()))
    })?;
    let mut entries = Vec::new();
    flatten(table.get_ref(), &mut Vec::new(), &mut |keys, value, at| {
        let origin = Origin::File { path: path.to_owned(), line: line_of(text, at) };
        entries.push(Entry { path: keys.to_vec(), value: Some(value), text: None, origin });
    });
    Ok(entries)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

fn flatten(table: &DeTable<'_>, path: &mut Vec<String>, found: &mut impl FnMut(&[String], Value, usize)) {
    for (key, value) in table.iter() {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(inner, path, found),
            other => found(path, owned(other), key.span().start),
        }
        path.pop();
    }
}

fn owned(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.to_string()), Value::Float)
        }
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| owned(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(
            table.iter().map(|(key, value)| (key.get_ref().to_string(), owned(value.get_ref()))).collect(),
        ),
    }
}
