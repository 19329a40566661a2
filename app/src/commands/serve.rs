//! `partita serve`: front door and workers, until it is told to stop.

use crate::{
    allocator,
    cli::{RoleArg, ServeArgs},
    handlers::{HandlerConfig, HandlerKind},
    push::{Push, Target},
    recorder::{Recorder, Recordings, routes},
    telemetry,
};
use anyhow::Context;
use partita::{
    Config, Pipeline, Role, Running,
    config::{ConfigError, Layered, LogKind},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

/// Serves.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let layered = args.load()?;
    refuse_half_of_embedded(args.role, &layered)?;
    raise_file_limit();
    let handler = HandlerConfig::read(&layered.config.handler)?;
    let metrics = telemetry::install()?;
    let role = Role::from(args.role);
    let config = layered.config;
    if let Err(error) = allocator::adapt_to(config.memory.budget.as_u64()) {
        tracing::warn!(%error, "what is freed may stay resident beside a small budget");
    }
    let pipeline = Pipeline::builder(config.clone()).role(role).metrics(metrics);
    let pipeline = match handler.kind {
        HandlerKind::Recorder => {
            let recordings = Arc::new(Recordings::open(&handler.recorder)?);
            let pipeline = pipeline.front_door_routes(routes(recordings.clone()));
            pipeline.handler(move |_| Recorder::new(recordings.clone()))
        }
        HandlerKind::Http => {
            let target = Target::new(&handler.http)?;
            pipeline.handler(move |_| Push::new(target.clone()))
        }
    };
    actix_rt::System::new().block_on(async {
        let running = pipeline.start().await.context("serve did not start")?;
        announce(&config, handler.kind, role, &running);
        running.run().await.context("serve ended")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Connections are files, too: as many as the system lets this process have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// The embedded log belongs to one process: a half of it alone would serve nobody.
fn refuse_half_of_embedded(role: RoleArg, layered: &Layered) -> Result<(), ConfigError> {
    if role == RoleArg::All || layered.config.log.kind == LogKind::Kafka {
        return Ok(());
    }
    Err(ConfigError(format!(
        "one role alone needs log.kind = \"kafka\"; it is \"embedded\" ({}), which is one process\nhelp: leave --role out, or add --set log.kind=kafka",
        layered.origin("log.kind")
    )))
}

/// Says on standard output where things are. Other programs wait for these lines: the addresses have the ports that were
/// chosen.
fn announce(config: &Config, handler: HandlerKind, role: Role, running: &Running) {
    let log = match config.log.kind {
        LogKind::Embedded => format!("embedded log in {}", config.log.embedded.dir.display()),
        LogKind::Kafka => {
            format!("topic {} on Kafka at {}", config.log.kafka.topic, config.log.kafka.bootstrap_servers)
        }
    };
    let mut text = format!("partita {} serves ({}, {log})\n", env!("CARGO_PKG_VERSION"), role_name(role));
    let admin = url("http", running.admin());
    let scheme = if config.front_door.tls_key.is_some() { "https" } else { "http" };
    let front_door = running.front_door().map(|address| url(scheme, address));
    if let Some(door) = &front_door {
        text += &format!("  front door  {door}/v1/tasks/{{key}}\n");
        if handler == HandlerKind::Recorder {
            text += &format!("  recordings  {door}/v1/recordings\n");
        }
    }
    text += &format!("  metrics     {admin}/metrics\n  ready       {admin}/readyz\n");
    if let Some(door) = &front_door {
        text += &match handler {
            HandlerKind::Recorder => {
                format!("try: curl -d hello {door}/v1/tasks/demo && curl {door}/v1/recordings/demo\n")
            }
            HandlerKind::Http => format!("try: curl -d hello {door}/v1/tasks/demo\n"),
        };
    }
    // A closed standard output is no reason not to serve.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::All => "front door and workers",
        Role::FrontDoor => "front door",
        Role::Worker => "worker",
    }
}

/// An address to paste: one that listens everywhere is reached here, too.
fn url(scheme: &str, address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::All => Self::All,
            RoleArg::FrontDoor => Self::FrontDoor,
            RoleArg::Worker => Self::Worker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_listens_everywhere_is_shown_as_one_that_can_be_reached() {
        for (listen, shown) in [
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("10.1.2.3:80", "http://10.1.2.3:80"),
        ] {
            assert_eq!(url("http", listen.parse().unwrap()), shown);
        }
    }
}
