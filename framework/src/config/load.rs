//! Layers of settings: defaults < TOML file < environment < flags, and where each value came from.

use super::{
    Config, Kind, Origin, Setting, file, kind,
    settings::{Catalogue, Named},
};
use std::{collections::BTreeMap, path::PathBuf};
use toml::{Table, Value};

/// What the names of environment variables begin with. Levels are parted by two underscores.
pub const ENV_PREFIX: &str = "PARTITA_";

/// Names that begin with the prefix and are not settings: the flag of that name reads it.
const RESERVED: &[&str] = &["PARTITA_CONFIG", "PARTITA_TOKEN", "PARTITA_URL"];

/// A configuration and the origin of each value that is not a default, by its dotted path.
#[derive(Debug, Clone)]
pub struct Layered {
    /// The settings.
    pub config: Config,
    /// The origins.
    pub origins: BTreeMap<String, Origin>,
    pub(super) values: Table,
    pub(super) defaults: Table,
    pub(super) catalogue: Catalogue,
}

/// A configuration that is refused. Its message says where, and in a line that begins with `help:` what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// One value of a layer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<String>,
    /// A typed value, from a file.
    pub(super) value: Option<Value>,
    /// Text, from the environment or a flag.
    pub(super) text: Option<String>,
    pub(super) origin: Origin,
}

/// Puts the layers together.
///
/// ```
/// # use partita::config::Loader;
/// let layered = Loader::new()
///     .environment([("PARTITA_LOG__KIND", "kafka")])
///     .set("--set", "log.kafka.topic", "orders")
///     .load()?;
/// assert_eq!(layered.config.log.kafka.topic, "orders");
/// # Ok::<(), partita::config::ConfigError>(())
/// ```
#[derive(Debug, Default)]
pub struct Loader {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    flags: Vec<(String, String, String)>,
    handler: Option<(&'static [Setting], Table)>,
}

impl Loader {
    /// Defaults alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// The program's own settings below `[handler]` with their defaults. Without this anything may stand there.
    pub fn handler(mut self, settings: &'static [Setting], defaults: Table) -> Self {
        self.handler = Some((settings, defaults));
        self
    }

    /// The file.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// The environment, for instance `std::env::vars()`. Other programs' variables are left alone.
    pub fn environment<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// A value given by `flag`, at a dotted path. A later one wins.
    pub fn set(mut self, flag: impl Into<String>, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((flag.into(), path.into(), value.into()));
        self
    }

    /// Puts the layers together and checks the whole.
    pub fn load(self) -> Result<Layered, ConfigError> {
        let catalogue = Catalogue { handler: self.handler.as_ref().map(|(settings, _)| *settings) };
        let mut entries = match &self.file {
            Some(path) => file::read(path)?,
            None => Vec::new(),
        };
        entries.extend(environment_entries(&self.environment, &catalogue)?);
        entries.extend(self.flags.iter().map(|(flag, path, value)| flag_entry(flag, path, value)));

        let mut defaults = to_table(&Config::default())?;
        if let Some((_, handler)) = self.handler {
            defaults.insert("handler".into(), Value::Table(handler));
        }
        let mut values = defaults.clone();
        let mut origins = BTreeMap::new();
        for entry in entries {
            let origin = entry.origin.clone();
            if let Some((path, value)) = resolve(entry, &catalogue)? {
                origins.insert(path.join("."), origin);
                insert(&mut values, &path, value);
            }
        }
        let config = to_config(&values, &origins)?;
        let layered = Layered { config, origins, values, defaults, catalogue };
        layered.validate()?;
        Ok(layered)
    }
}

impl Layered {
    /// Where the value at a dotted path came from.
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }
}

fn flag_entry(flag: &str, path: &str, value: &str) -> Entry {
    let path = path.split('.').map(|part| part.trim().trim_matches('"').to_owned()).collect();
    Entry { path, value: None, text: Some(value.to_owned()), origin: Origin::Flag(flag.to_owned()) }
}

fn environment_entries(
    variables: &[(String, String)],
    catalogue: &Catalogue,
) -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
        if RESERVED.contains(&name.as_str()) || is_service_link(rest) {
            continue;
        }
        let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        if matches!(catalogue.find(&path), Named::Unknown | Named::Section) {
            return Err(unknown_variable(name, rest, catalogue));
        }
        let origin = Origin::Environment(name.clone());
        entries.push(Entry { path, value: None, text: Some(value.clone()), origin });
    }
    Ok(entries)
}

/// Kubernetes puts `PARTITA_SERVICE_HOST`, `PARTITA_PORT_8080_TCP_ADDR` and the like into every pod beside a service named partita.
fn is_service_link(rest: &str) -> bool {
    let single_level = !rest.contains("__");
    let port = rest == "PORT" || rest.ends_with("_PORT") || rest.contains("PORT_");
    let port_part =
        ["_TCP", "_UDP", "_SCTP", "_PROTO", "_PORT", "_ADDR"].iter().any(|end| rest.ends_with(end));
    single_level
        && (rest.ends_with("SERVICE_HOST")
            || rest.contains("SERVICE_PORT")
            || rest == "PORT"
            || (port && port_part))
}

fn unknown_variable(name: &str, rest: &str, catalogue: &Catalogue) -> ConfigError {
    let guess = catalogue
        .all()
        .map(|setting| variable_of(setting.path))
        // What all of them begin with makes none more alike.
        .map(|known| (strsim::jaro_winkler(rest, known.trim_start_matches(ENV_PREFIX)), known))
        .filter(|(score, _)| *score >= 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let help = match guess {
        Some((_, known)) => format!("did you mean {known}?"),
        None => "names are PARTITA_ and the setting's path with two underscores between levels; `partita config print` lists all settings".into(),
    };
    ConfigError(format!(
        "the environment variable {name} names no setting ({})\nhelp: {help}",
        rest.to_lowercase().replace("__", ".")
    ))
}

/// The environment variable of a setting.
pub(super) fn variable_of(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.to_uppercase().replace('.', "__"))
}

/// The place and the checked value of an entry; nothing for an empty section.
fn resolve(entry: Entry, catalogue: &Catalogue) -> Result<Option<(Vec<String>, Value)>, ConfigError> {
    let Entry { path, value, text, origin } = entry;
    let dotted = path.join(".");
    let value = |kind: Kind| match (value, text.as_deref()) {
        (Some(value), _) => value,
        (None, Some(text)) => kind.read(text),
        (None, None) => Value::String(String::new()),
    };
    match catalogue.find(&path) {
        Named::Setting(setting) => {
            let given = value(setting.kind);
            let found = kind::describe(&given);
            match setting.kind.accept(given) {
                Some(value) => Ok(Some((path, value))),
                None => Err(wrong_type(setting, &dotted, &found, &origin)),
            }
        }
        Named::Property(setting) => {
            let name =
                dotted.strip_prefix(setting.path).unwrap_or_default().trim_start_matches('.').to_owned();
            let given = value(Kind::Properties);
            let found = kind::describe(&given);
            let place = setting.path.split('.').map(str::to_owned).chain([name]).collect();
            match Kind::Properties.accept(given) {
                Some(value) => Ok(Some((place, value))),
                None => Err(ConfigError(format!(
                    "{dotted}: expected a string, found {found} ({origin})\nhelp: for example  \"linger.ms\" = \"0\""
                ))),
            }
        }
        Named::Open => {
            let parsed = text.as_deref().map(|text| kind::parse_scalar(text).unwrap_or_else(|| text.into()));
            Ok(Some((path, parsed.unwrap_or_else(|| value(Kind::Text)))))
        }
        Named::Section => match value(Kind::Text) {
            Value::Table(table) if table.is_empty() => Ok(None),
            other => Err(ConfigError(format!(
                "{dotted} is a section, not a setting, and was given {} ({origin})\nhelp: write its settings below [{dotted}]",
                kind::describe(&other)
            ))),
        },
        Named::Unknown => Err(unknown_key(&dotted, &origin, catalogue)),
    }
}

fn unknown_key(dotted: &str, origin: &Origin, catalogue: &Catalogue) -> ConfigError {
    let help = match catalogue.nearest(dotted) {
        Some(known) => format!("did you mean {known}?"),
        None => "`partita config print` lists all settings".into(),
    };
    ConfigError(format!("{dotted} is not a setting ({origin})\nhelp: {help}"))
}

fn wrong_type(setting: &Setting, dotted: &str, found: &str, origin: &Origin) -> ConfigError {
    let leaf = setting.path.rsplit('.').next().unwrap_or(setting.path);
    let expected = setting.kind.expected();
    let example = match origin {
        Origin::Environment(name) => format!("{name}={}", setting.example.trim_matches('"')),
        Origin::Flag(flag) if flag == "--set" => {
            format!("--set {dotted}={}", setting.example.trim_matches('"'))
        }
        Origin::Flag(flag) => format!("{flag} {}", setting.example.trim_matches('"')),
        _ => format!("{leaf} = {}", setting.example),
    };
    ConfigError(format!(
        "{dotted}: expected {expected}, found {found} ({origin})\nhelp: for example  {example}"
    ))
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut place = table;
    for parent in parents {
        let next = place.entry(parent.clone()).or_insert_with(|| Value::Table(Table::new()));
        if !next.is_table() {
            *next = Value::Table(Table::new());
        }
        match next {
            Value::Table(inner) => place = inner,
            _ => return,
        }
    }
    place.insert(last.clone(), value);
}

fn to_table(config: &Config) -> Result<Table, ConfigError> {
    Table::try_from(config).map_err(|error| ConfigError(format!("the defaults cannot be written: {error}")))
}

fn to_config(values: &Table, origins: &BTreeMap<String, Origin>) -> Result<Config, ConfigError> {
    serde_path_to_error::deserialize(values.clone()).map_err(|error| {
        let path = error.path().to_string();
        let origin = origins.get(&path).cloned().unwrap_or(Origin::Default);
        ConfigError(format!("{path}: {} ({origin})", error.inner().to_string().trim_end()))
    })
}
