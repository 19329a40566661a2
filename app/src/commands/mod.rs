//! What each command does.

mod check;
mod config_print;
mod engine;
mod parked;
mod rewind;
mod serve;
mod token;
mod topics;
mod workers;

use crate::{
    bench,
    cli::{Cli, Command, ConfigCommand, TopicsCommand},
    logging, send,
};
use std::process::ExitCode;

/// Runs the command. An error is a message for the operator, and its kind decides the exit code.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    logging::start(&cli.logging)?;
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Send(args) => send::run(&args),
        Command::Topics(TopicsCommand::Create(args)) => topics::create(&args),
        Command::Token(args) => token::run(&args),
        Command::Parked(command) => parked::run(command),
        Command::Rewind(args) => rewind::run(&args),
        Command::Config(ConfigCommand::Print(args)) => config_print::run(&args),
    }
}
