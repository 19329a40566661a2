//! The command line.

use crate::{bench, handlers, send};
use clap::{Args, Parser, Subcommand, ValueEnum};
use partita::config::{ConfigError, Layered, Loader};
use std::{net::SocketAddr, path::PathBuf};

/// Durable, ordered, key by key: tasks in over HTTP, one actor per partition, on an embedded log or on Kafka.
#[derive(Debug, Parser)]
#[command(name = "partita", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) logging: LoggingArgs,
}

/// How the process logs.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoggingArgs {
    /// What to log, as `info` or `partita=debug,warn`
    #[arg(
        long = "log",
        global = true,
        env = "RUST_LOG",
        value_name = "FILTER",
        default_value = "info,actix_server=warn"
    )]
    pub(crate) filter: String,
    /// How each line looks
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take tasks over HTTP and process them, until SIGTERM or Ctrl-C
    Serve(ServeArgs),
    /// Look whether `serve` would work: a line per check, and how to mend what is wrong
    Check(ConfigArgs),
    /// Send files, or lines of CloudEvents, until each is known to be stored
    Send(send::Args),
    /// Put a load on a running front door, and verify what comes back against what was acknowledged
    Bench(bench::Args),
    /// The topics in Kafka
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Make a token for the front door, and its entry in the file of tokens
    Token(TokenArgs),
    /// The tasks that are parked, and what is to become of them
    #[command(subcommand)]
    Parked(ParkedCommand),
    /// Have partitions read from another offset on: again, or past what cannot be read
    Rewind(RewindArgs),
    /// The settings
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// `partita token …`
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Whose token it is: shown in refusals
    pub(crate) name: String,
    /// Only for keys that begin so; may be given several times
    #[arg(long = "keys", value_name = "PREFIX")]
    pub(crate) keys: Vec<String>,
    /// What it may do
    #[arg(long, value_enum, value_delimiter = ',', default_value = "write")]
    pub(crate) verbs: Vec<VerbArg>,
    /// So many tasks a second at most
    #[arg(long, value_name = "TASKS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) tasks_per_second: Option<u64>,
    /// So many bytes of payload a second at most
    #[arg(long, value_name = "BYTES")]
    pub(crate) bytes_per_second: Option<bytesize::ByteSize>,
}

/// What a token may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerbArg {
    /// Storing tasks
    Write,
    /// Asking what became of them, and reading recordings
    Read,
}

/// `partita topics …`
#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Create the task topic, its parking topic and its journal of requests; what is there already is left as it is
    Create(ConfigArgs),
}

/// `partita parked …`
#[derive(Debug, Subcommand)]
pub(crate) enum ParkedCommand {
    /// List the parked tasks, by partition and offset
    List {
        /// Of this key only
        #[arg(long, conflicts_with = "partition")]
        key: Option<String>,
        /// Of this partition only
        #[arg(long)]
        partition: Option<u32>,
        /// So many at most, of each worker
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// A line of JSON a task, for programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        worker: WorkerArgs,
    },
    /// Show one parked task, as JSON
    Show {
        /// The task, as partition-offset
        task: String,
        /// Write its payload to standard output instead
        #[arg(long)]
        payload: bool,
        #[command(flatten)]
        worker: WorkerArgs,
    },
    /// Have parked tasks handled again: a key's in order, until one fails again or none is left
    Redrive {
        #[command(flatten)]
        which: WhichParked,
        #[command(flatten)]
        worker: WorkerArgs,
    },
    /// Give parked tasks up for good: they will never be handled
    Drop {
        #[command(flatten)]
        which: WhichParked,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        worker: WorkerArgs,
    },
}

/// Which parked tasks are meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichParked {
    /// A task, as partition-offset
    pub(crate) task: Option<String>,
    /// All of a key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// All of a partition
    #[arg(long)]
    pub(crate) partition: Option<u32>,
    /// All
    #[arg(long)]
    pub(crate) all: bool,
}

/// `partita rewind`
#[derive(Debug, Args)]
pub(crate) struct RewindArgs {
    #[command(flatten)]
    pub(crate) which: WhichPartitions,
    /// Where to: earliest, latest, committed (go on there), an offset, or a time like 2026-01-31T12:00:00Z
    #[arg(long)]
    pub(crate) to: String,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
}

/// Which partitions are meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichPartitions {
    /// One
    #[arg(long)]
    pub(crate) partition: Option<u32>,
    /// All that the workers own
    #[arg(long)]
    pub(crate) all: bool,
}

/// Which processes to ask.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// A worker's admin listener; again for each worker, since only its owner knows a partition [setting: admin.listen]
    #[arg(long = "admin", value_name = "URL")]
    pub(crate) admin: Vec<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `partita config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Every setting with its value and where it came from, as TOML
    Print(ConfigArgs),
}

/// `partita serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Which half to run; a half alone needs `log.kind = "kafka"`
    #[arg(long, value_enum, default_value_t = RoleArg::All)]
    pub(crate) role: RoleArg,
    /// Where tasks are taken [setting: front_door.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where operators and Prometheus ask [setting: admin.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<SocketAddr>,
}

/// The halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Front door and workers in one process.
    All,
    /// Takes tasks.
    FrontDoor,
    /// Processes tasks.
    Worker,
}

/// Where settings come from. Defaults < file < environment (`PARTITA_LOG__KIND=kafka`) < flags.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", env = "PARTITA_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, as `log.kafka.topic=orders`; may be given again
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
}

impl ConfigArgs {
    /// Puts the layers together.
    pub(crate) fn load(&self) -> Result<Layered, ConfigError> {
        self.loader()?.load()
    }

    fn loader(&self) -> Result<Loader, ConfigError> {
        // A variable that is not UTF-8 cannot be a setting.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut loader =
            Loader::new().handler(handlers::SETTINGS, handlers::defaults()).environment(variables);
        if let Some(file) = &self.config {
            loader = loader.file(file);
        }
        for pair in &self.set {
            let (path, value) = pair.split_once('=').ok_or_else(|| {
                ConfigError(format!(
                    "--set {pair} has no value\nhelp: write it as --set log.kafka.topic=orders"
                ))
            })?;
            loader = loader.set("--set", path.trim(), value);
        }
        Ok(loader)
    }
}

impl ServeArgs {
    /// Puts the layers together, with the flags of `serve` on top.
    pub(crate) fn load(&self) -> Result<Layered, ConfigError> {
        let mut loader = self.config.loader()?;
        for (flag, path, address) in [
            ("--listen", "front_door.listen", self.listen),
            ("--admin-listen", "admin.listen", self.admin_listen),
        ] {
            if let Some(address) = address {
                loader = loader.set(flag, path, address.to_string());
            }
        }
        loader.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
