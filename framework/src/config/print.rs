//! `config print`: every setting with its value and origin, as TOML that can be fed back.

use super::{Kind, Layered, Origin, Setting};
use std::fmt::Write;
use toml::{Table, Value};

impl Layered {
    /// The settings in force as commented TOML. Secrets are left out, as comments.
    pub fn print(&self) -> String {
        let mut out = String::from(
            "# Every setting, its value and where it came from. This is a valid configuration file.\n",
        );
        let mut section = "";
        let mut properties = None;
        for setting in self.catalogue.all() {
            if setting.kind == Kind::Properties {
                properties = Some(setting);
                continue;
            }
            let (parent, name) = setting.path.rsplit_once('.').unwrap_or(("", setting.path));
            if parent != section {
                if let Some(setting) = properties.take() {
                    self.print_properties(setting, &mut out);
                }
                section = parent;
                let _ = writeln!(out, "\n[{section}]");
            }
            self.print_setting(setting, name, &mut out);
        }
        if let Some(setting) = properties {
            self.print_properties(setting, &mut out);
        }
        if self.catalogue.handler.is_none() {
            self.print_open_handler(&mut out);
        }
        out
    }

    fn print_setting(&self, setting: &Setting, name: &str, out: &mut String) {
        let origin = self.origin(setting.path);
        let default = lookup(&self.defaults, setting.path);
        let _ = writeln!(out, "# {}", setting.help);
        let _ = match (lookup(&self.values, setting.path), origin) {
            (Some(_), origin)
                if [".token", ".secret"].iter().any(|secret| setting.path.ends_with(secret)) =>
            {
                writeln!(out, "# {name} = \"(not shown)\"    # {origin}")
            }
            (None, _) => writeln!(out, "# {name} = {}    # unset", setting.example),
            (Some(value), Origin::Default) => writeln!(out, "{name} = {value}    # default"),
            (Some(value), origin) => match default {
                Some(default) => writeln!(out, "{name} = {value}    # {origin}; default {default}"),
                None => writeln!(out, "{name} = {value}    # {origin}; default: unset"),
            },
        };
    }

    fn print_properties(&self, setting: &Setting, out: &mut String) {
        let _ = writeln!(out, "\n# {}\n[{}]", setting.help, setting.path);
        let Some(Value::Table(properties)) = lookup(&self.values, setting.path) else { return };
        for (name, value) in properties {
            let origin = self.origin(&format!("{}.{name}", setting.path));
            let key = Value::String(name.clone());
            let _ = if is_secret(name) {
                writeln!(out, "# {key} = \"(not shown)\"    # {origin}")
            } else {
                writeln!(out, "{key} = {value}    # {origin}")
            };
        }
    }

    /// An embedding program's handler settings, of which nothing is known here: they are shown as they are.
    fn print_open_handler(&self, out: &mut String) {
        let Some(handler) =
            self.values.get("handler").and_then(Value::as_table).filter(|table| !table.is_empty())
        else {
            return;
        };
        let table = Table::from_iter([("handler".to_owned(), Value::Table(handler.clone()))]);
        let _ = writeln!(out, "\n{}", toml::to_string(&table).unwrap_or_default());
    }
}

fn lookup<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (last, parents) = match path.rsplit_once('.') {
        Some((parents, last)) => (last, parents.split('.').collect()),
        None => (path, Vec::new()),
    };
    parents.into_iter().try_fold(table, |table, key| table.get(key)?.as_table())?.get(last)
}

/// Whether a property's value may be a secret. Paths of key files are not.
pub fn is_secret(name: &str) -> bool {
    const MARKS: [&str; 7] =
        ["password", "secret", "token", "key", "credential", "jaas", "oauthbearer.config"];
    let name = name.to_lowercase();
    MARKS.iter().any(|mark| name.contains(mark)) && !name.ends_with(".location") && !name.ends_with(".url")
}
