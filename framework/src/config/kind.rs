//! What a setting's values look like, and what is said of one that does not.

use bytesize::ByteSize;
use humantime_serde::re::humantime;
use std::net::SocketAddr;
use toml::Value;

/// What the values of a setting look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path in the file system.
    Path,
    /// `ip:port`.
    Address,
    /// A whole number, 0 or more.
    Integer,
    /// `true` or `false`.
    Bool,
    /// Bytes, or a string with a unit.
    Size,
    /// A string with a unit.
    Duration,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A table of names that are not known here, to text.
    Properties,
}

impl Kind {
    /// What is expected, for people.
    pub fn expected(self) -> String {
        match self {
            Self::Text => "a string".into(),
            Self::Path => "a path".into(),
            Self::Address => "an address, ip:port".into(),
            Self::Integer => "a whole number, 0 or more".into(),
            Self::Bool => "true or false".into(),
            Self::Size => "a size: bytes, or a string with a unit".into(),
            Self::Duration => "a duration: a string with a unit".into(),
            Self::Choice(choices) => {
                let quoted: Vec<_> = choices.iter().map(|choice| format!("{choice:?}")).collect();
                quoted.join(" or ")
            }
            Self::Properties => "a table".into(),
        }
    }

    /// The value in its stored form, or `None` where it is not of this kind.
    pub(super) fn accept(self, value: Value) -> Option<Value> {
        let fits = match (self, &value) {
            (Self::Text | Self::Path, Value::String(_)) | (Self::Bool, Value::Boolean(_)) => true,
            (Self::Address, Value::String(text)) => text.parse::<SocketAddr>().is_ok(),
            (Self::Integer | Self::Size, Value::Integer(number)) => *number >= 0,
            (Self::Size, Value::String(text)) => text.parse::<ByteSize>().is_ok(),
            (Self::Duration, Value::String(text)) => humantime::parse_duration(text).is_ok(),
            (Self::Choice(choices), Value::String(text)) => choices.contains(&text.as_str()),
            // librdkafka's properties are text, however they are written.
            (Self::Properties, Value::Integer(_) | Value::Float(_) | Value::Boolean(_)) => {
                return Some(Value::String(value.to_string()));
            }
            (Self::Properties, Value::String(_)) => true,
            _ => false,
        };
        fits.then_some(value)
    }

    /// A value that came as text, from the environment or a flag: a TOML value where that is of this kind, else the text itself.
    pub(super) fn read(self, text: &str) -> Value {
        let parsed = parse_scalar(text);
        let textual = matches!(self, Self::Text | Self::Path | Self::Properties);
        match parsed {
            Some(value @ Value::String(_)) => value,
            Some(value) if !textual => value,
            _ => Value::String(text.to_owned()),
        }
    }
}

/// Text as a TOML value, where it is one.
pub(super) fn parse_scalar(text: &str) -> Option<Value> {
    let mut table = format!("value = {}", text.trim()).parse::<toml::Table>().ok()?;
    // More than one key: the text had a line break and settings of its own.
    if table.len() == 1 { table.remove("value") } else { None }
}

/// What a value is, for people.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the string {text:?}"),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Boolean(flag) => format!("{flag}"),
        Value::Datetime(time) => format!("the time {time}"),
        Value::Array(_) => "an array".into(),
        Value::Table(_) => "a table".into(),
    }
}
