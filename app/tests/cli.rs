//! The binary, from outside: exit codes, messages, settings.

#![allow(clippy::unwrap_used)]

use assert_cmd::Command;
use std::{path::Path, process::Output};

fn partita(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("partita").unwrap();
    command.current_dir(dir).env_clear();
    command
}

fn run(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    text(partita(dir).args(arguments).output().unwrap())
}

fn text(output: Output) -> (i32, String, String) {
    let code = output.status.code().expect("the process was not killed");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(output.stdout), text(output.stderr))
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in
        [&["frobnicate"][..], &["serve", "--role", "both"], &["config"], &["serve", "--nope"], &[]]
    {
        let (code, _, stderr) = run(dir.path(), arguments);
        assert_eq!(code, 2, "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"], &["topics", "create", "--help"]]
    {
        let (code, stdout, _) = run(dir.path(), arguments);
        assert_eq!(code, 0, "{arguments:?}");
        assert!(!stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_wrong_configuration_ends_with_2_and_one_block_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.toml"), "[log]\nknd = \"kafka\"\n").unwrap();
    for command in [&["serve"][..], &["check"], &["topics", "create"], &["config", "print"]] {
        let (code, stdout, stderr) = run(dir.path(), &[command, &["--config", "f.toml"]].concat());
        assert_eq!((code, stdout.as_str()), (2, ""), "{command:?}");
        assert_eq!(
            stderr, "error: log.knd is not a setting (f.toml:2)\nhelp: did you mean log.kind?\n",
            "{command:?}"
        );
    }
    for (arguments, part) in [
        (&["--config", "no-such.toml"][..], "no-such.toml"),
        (&["--set", "memory.budget=1MiB"], "help: raise the budget"),
        (&["--set", "log.kind"], "has no value"),
        (&["--log", "a=b=c"], "is not a filter"),
    ] {
        let (code, _, stderr) = run(dir.path(), &[&["config", "print"], arguments].concat());
        assert_eq!(code, 2, "{arguments:?}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains("\nhelp: ") && stderr.contains(part),
            "{stderr}"
        );
    }
    assert_eq!(run(dir.path(), &["serve", "--role", "worker"]).0, 2, "a half of the embedded log");
    assert_eq!(run(dir.path(), &["topics", "create"]).0, 2, "topics of the embedded log");
}

#[test]
fn the_environment_reaches_the_binary() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.toml"), "log.kafka.topic = \"file\"\nlog.kafka.group = \"file\"\n")
        .unwrap();
    let output = partita(dir.path())
        .args(["config", "print", "--set", "log.kafka.partitions=7"])
        .env("PARTITA_CONFIG", "f.toml")
        .env("PARTITA_LOG__KAFKA__TOPIC", "env")
        .env("PARTITA_LOG__KAFKA__PROPERTIES__SASL__PASSWORD", "hunter2")
        .output()
        .unwrap();
    let (code, stdout, stderr) = text(output);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("topic = \"env\"    # environment PARTITA_LOG__KAFKA__TOPIC"), "{stdout}");
    assert!(stdout.contains("group = \"file\"    # f.toml:2"), "{stdout}");
    assert!(stdout.contains("partitions = 7    # --set"), "{stdout}");
    assert!(!stdout.contains("hunter2"), "{stdout}");
}

#[test]
fn what_config_prints_can_be_fed_back() {
    let dir = tempfile::tempdir().unwrap();
    let (_, first, _) = run(
        dir.path(),
        &["config", "print", "--set", "memory.budget=700MB", "--set", "handler.recorder.sync=false"],
    );
    std::fs::write(dir.path().join("again.toml"), &first).unwrap();
    let (code, second, stderr) = run(dir.path(), &["config", "print", "--config", "again.toml"]);
    assert_eq!(code, 0, "{stderr}");
    let values = |text: &str| text.parse::<toml::Table>().unwrap();
    assert_eq!(values(&first), values(&second));
    assert_eq!(values(&second)["handler"]["recorder"]["sync"].as_bool(), Some(false));
}
