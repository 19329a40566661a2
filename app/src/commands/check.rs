//! `partita check`: would `serve` work? A line per check, and the fix.

use crate::{
    cli::ConfigArgs,
    failure::FAILED,
    handlers::{HandlerConfig, HandlerKind},
    recorder::{RecorderConfig, Recordings},
};
use bytesize::ByteSize;
use partita::{
    Config,
    config::{Layered, LogKind},
    front_door::FrontDoor,
    memory::MemoryBudget,
};
use std::{io::Write, net::TcpListener, path::Path, process::ExitCode};

/// How good or bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) subject: String,
    pub(super) detail: String,
    /// What to do about it; empty where nothing is.
    pub(super) help: String,
}

impl Finding {
    pub(super) fn ok(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), detail: detail.into(), help: String::new() }
    }

    pub(super) fn fail(
        subject: impl Into<String>,
        detail: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { level: Level::Fail, subject: subject.into(), detail: detail.into(), help: help.into() }
    }
}

/// Looks, prints, and gives 1 where something would keep `serve` from working.
pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let layered = args.load()?;
    let handler = HandlerConfig::read(&layered.config.handler)?;
    let config = &layered.config;
    let mut findings = vec![settings(args, &layered), memory(config)];
    match config.log.kind {
        LogKind::Embedded => findings.extend(super::engine::check_embedded(config)),
        LogKind::Kafka => findings.extend(super::engine::check_kafka(config)),
    }
    findings.push(match handler.kind {
        HandlerKind::Recorder => recordings(&handler.recorder),
        HandlerKind::Http => receiver(&handler),
    });
    findings.push(listener("front_door.listen", config.front_door.listen));
    findings.push(listener("admin.listen", config.admin.listen));
    findings.push(entrance(config));
    print(&findings);
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if failed { FAILED.into() } else { ExitCode::SUCCESS })
}

fn print(findings: &[Finding]) {
    let mut out = std::io::stdout().lock();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        let _ = writeln!(out, "{level}  {}: {}", finding.subject, finding.detail);
        if !finding.help.is_empty() {
            let _ = writeln!(out, "      help: {}", finding.help);
        }
    }
}

/// Whoever tasks are delivered to, as far as that is known without delivering one.
fn receiver(handler: &HandlerConfig) -> Finding {
    const SUBJECT: &str = "handler.http.url";
    // Its path and query may be what lets one in.
    let url = handler.http.url.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
    let url = url.map_or_else(String::new, |url| url.origin().ascii_serialization());
    match crate::push::reach(&handler.http) {
        Ok(()) if handler.http.secret.is_none() => Finding {
            level: Level::Warn,
            subject: SUBJECT.into(),
            detail: format!("{url} can be reached; deliveries are not signed"),
            help: "set handler.http.secret, so that the receiver knows that they are from here".into(),
        },
        Ok(()) => Finding::ok(SUBJECT, format!("{url} can be reached")),
        Err(error) => Finding {
            level: Level::Warn,
            subject: SUBJECT.into(),
            detail: format!("{url} cannot be reached now: {error:#}"),
            help: "start the service, or mend the URL; until then tasks wait".into(),
        },
    }
}

/// Who may store tasks.
fn entrance(config: &Config) -> Finding {
    const SUBJECT: &str = "front_door.tokens_file";
    let door = &config.front_door;
    match (FrontDoor::check(door), door.token.is_some() || door.tokens_file.is_some()) {
        (Err(error), _) => Finding::fail("front_door", error.to_string(), "mend the file that is named"),
        (Ok(()), true) if !door.listen.ip().is_loopback() && door.tls_key.is_none() => Finding {
            level: Level::Warn,
            subject: SUBJECT.into(),
            detail: format!("tokens come to {} in the clear", door.listen),
            help: "set front_door.tls_certificate and front_door.tls_key, unless a proxy in front speaks TLS"
                .into(),
        },
        (Ok(()), true) => Finding::ok(SUBJECT, "a token is asked for"),
        (Ok(()), false) if door.listen.ip().is_loopback() => {
            Finding::ok(SUBJECT, "no token is asked for, on this machine only")
        }
        (Ok(()), false) => Finding {
            level: Level::Warn,
            subject: SUBJECT.into(),
            detail: format!("anybody who reaches {} may store tasks and read recordings", door.listen),
            help: "set front_door.tokens_file (see `partita token`), or let a proxy ask".into(),
        },
    }
}

fn settings(args: &ConfigArgs, layered: &Layered) -> Finding {
    let file = args.config.as_ref().map_or("no file".to_owned(), |file| file.display().to_string());
    Finding::ok("config", format!("{file}, {} settings are not the defaults", layered.origins.len()))
}

fn memory(config: &Config) -> Finding {
    match MemoryBudget::divide(config.memory.budget.as_u64(), config.limits.max_task.as_u64()) {
        Ok(budget) => {
            let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
            let detail = format!(
                "{} for tasks of up to {}: {} bodies, {} decompressed, {} fetched, {} prefetched, {} index of parked tasks",
                mib(budget.total()),
                mib(config.limits.max_task.as_u64()),
                mib(budget.intake.capacity()),
                mib(budget.decode.capacity()),
                mib(budget.fetched),
                mib(budget.prefetch),
                ByteSize::b(budget.parked.capacity()).display().iec_short()
            );
            Finding::ok("memory", detail)
        }
        Err(error) => Finding::fail("memory", error, "raise memory.budget or lower limits.max_task"),
    }
}

fn recordings(config: &RecorderConfig) -> Finding {
    const SUBJECT: &str = "recordings";
    if !config.dir.exists() {
        return will_be_made(SUBJECT, &config.dir, "handler.recorder.dir");
    }
    let writable = Recordings::open(config)
        .and_then(|_| tempfile_in(&config.dir).map_err(anyhow::Error::from))
        .map(|()| Finding::ok(SUBJECT, format!("{} can be written", config.dir.display())));
    writable.unwrap_or_else(|error| {
        let help = format!("let this user write to {}, or set handler.recorder.dir", config.dir.display());
        Finding::fail(SUBJECT, format!("{error:#}"), help)
    })
}

/// A directory that is not there yet: can it be made?
pub(super) fn will_be_made(subject: &str, dir: &Path, setting: &str) -> Finding {
    // The name's parent may be empty: that is the working directory.
    let there =
        dir.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let place = there.into_iter().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    match tempfile_in(place) {
        Ok(()) => Finding::ok(subject, format!("{} is not there yet and can be made", dir.display())),
        Err(error) => {
            let detail = format!("{} cannot be made in {}: {error}", dir.display(), place.display());
            Finding::fail(subject, detail, format!("make it and let this user write to it, or set {setting}"))
        }
    }
}

/// Writes a file and removes it: the only sure way to know that one can.
pub(super) fn tempfile_in(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".partita-check-{}", std::process::id()));
    std::fs::write(&path, b"x")?;
    std::fs::remove_file(&path)
}

fn listener(setting: &str, address: std::net::SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(setting, format!("{address} is free")),
        Err(error) => Finding {
            level: Level::Warn,
            subject: setting.into(),
            detail: format!("{address} cannot be listened on now: {error}"),
            help: format!("if that is not this very service running, choose another address with {setting}"),
        },
    }
}
