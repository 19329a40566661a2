use super::*;
use std::io::Write;

const RECORDER: &[Setting] = &[Setting {
    path: "handler.recorder.dir",
    kind: Kind::Path,
    example: "\"recordings\"",
    help: "Where recordings go.",
}];

fn recorder_defaults() -> toml::Table {
    "recorder.dir = \"recordings\"".parse().unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load_file(text: &str) -> Result<Layered, ConfigError> {
    Loader::new().handler(RECORDER, recorder_defaults()).file(file(text).path()).load()
}

fn load_env(variables: &[(&str, &str)]) -> Result<Layered, ConfigError> {
    Loader::new().handler(RECORDER, recorder_defaults()).environment(variables.iter().copied()).load()
}

fn load_set(pairs: &[(&str, &str)]) -> Result<Layered, ConfigError> {
    pairs.iter().fold(Loader::new(), |loader, (path, value)| loader.set("--set", *path, *value)).load()
}

#[test]
fn the_catalogue_names_exactly_the_settings_that_exist() {
    // serde's message for an unknown field lists the known ones.
    let mut fields = Vec::new();
    let mut sections = vec![String::new()];
    while let Some(section) = sections.pop() {
        let probe =
            if section.is_empty() { "no-such = 1".into() } else { format!("[{section}]\nno-such = 1") };
        let message = toml::from_str::<Config>(&probe).map(|_| ()).unwrap_err().message().to_owned();
        let known = message.split_once("expected one of ").map(|(_, known)| known);
        let known = known.or(message.split_once("expected ").map(|(_, known)| known)).unwrap();
        // Two are named as `a` or `b`.
        let known = known.replace(" or ", ", ");
        for name in known.split(", ").map(|name| name.trim_matches('`')) {
            let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            let below = SETTINGS.iter().any(|setting| setting.path.starts_with(&format!("{path}.")));
            match path == "handler" {
                true => {}
                false if below => sections.push(path),
                false => fields.push(path),
            }
        }
    }
    let mut known: Vec<_> = SETTINGS.iter().map(|setting| setting.path.to_owned()).collect();
    known.sort();
    fields.sort();
    assert_eq!(fields, known);
}

#[test]
fn every_example_in_the_catalogue_is_accepted_from_a_file_the_environment_and_a_flag() {
    for setting in SETTINGS {
        let leaf = if setting.kind == Kind::Properties { ".\"security.protocol\"" } else { "" };
        load_file(&format!("{}{leaf} = {}", setting.path, setting.example)).unwrap();
        let variable = load::variable_of(&format!("{}{}", setting.path, leaf.replace('"', "")));
        load_env(&[(&variable, setting.example.trim_matches('"'))]).unwrap();
        load_set(&[(&format!("{}{leaf}", setting.path), setting.example)]).unwrap();
    }
}

#[test]
fn without_layers_the_settings_are_the_defaults() {
    let layered = Loader::new().load().unwrap();
    assert!(layered.origins.is_empty());
    assert_eq!(toml::to_string(&layered.config).unwrap(), toml::to_string(&Config::default()).unwrap());
    assert_eq!(layered.config.limits.max_task.as_u64(), 100_000_000);
    assert_eq!(layered.config.memory.budget.as_u64(), 512 << 20);
}

#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
    let file = file(
        "log.kafka.topic = \"file\"\nlog.kafka.group = \"file\"\n[log.kafka.properties]\na = 1\nb = 1\nc = 1\n",
    );
    let base = || {
        Loader::new().file(file.path()).environment([
            ("PARTITA_LOG__KAFKA__TOPIC", "env"),
            ("PARTITA_LOG__KAFKA__PROPERTIES__B", "2"),
            ("PARTITA_LOG__KAFKA__PROPERTIES__C", "2"),
        ])
    };
    let layered = base()
        .set("--set", "log.kafka.topic", "flag")
        .set("--set", "log.kafka.properties.c", "3")
        .load()
        .unwrap();
    assert_eq!(layered.config.log.kafka.topic, "flag");
    assert_eq!(layered.origin("log.kafka.topic"), Origin::Flag("--set".into()));
    assert_eq!(layered.config.log.kafka.group, "file");
    assert_eq!(layered.origin("log.kafka.group"), Origin::File { path: file.path().into(), line: 2 });
    assert_eq!(layered.origin("log.kafka.partitions"), Origin::Default);
    let properties = &layered.config.log.kafka.properties;
    assert_eq!(properties.values().collect::<Vec<_>>(), ["1", "2", "3"]);
    assert_eq!(base().load().unwrap().config.log.kafka.topic, "env");
}

#[test]
fn values_are_read_by_the_kind_of_their_setting() {
    let layered = load_env(&[
        ("PARTITA_LOG__KAFKA__TOPIC", "5"),
        ("PARTITA_LOG__EMBEDDED__PARTITIONS", "5"),
        ("PARTITA_LIMITS__MAX_TASK", "1000"),
        ("PARTITA_MEMORY__BUDGET", "256MiB"),
        ("PARTITA_COMMIT__INTERVAL", "250ms"),
        ("PARTITA_FRONT_DOOR__LISTEN", "[::1]:0"),
        ("PARTITA_WORKER__TASK_TIMEOUT", "2m"),
        ("PARTITA_HANDLER__RECORDER__DIR", "true"),
    ])
    .unwrap();
    let config = &layered.config;
    assert_eq!((config.log.kafka.topic.as_str(), config.log.embedded.partitions), ("5", 5));
    assert_eq!((config.limits.max_task.as_u64(), config.memory.budget.as_u64()), (1000, 256 << 20));
    assert_eq!(config.commit.interval.as_millis(), 250);
    assert_eq!(config.worker.task_timeout.unwrap().as_secs(), 120);
    assert_eq!(config.front_door.listen.to_string(), "[::1]:0");
    assert_eq!(config.handler["recorder"]["dir"].as_str(), Some("true"));
}

#[test]
fn a_property_is_reached_by_file_environment_and_flag_whether_its_dots_are_quoted_or_not() {
    for layered in [
        load_file("[log.kafka.properties]\n\"security.protocol\" = \"SSL\""),
        load_file("[log.kafka.properties]\nsecurity.protocol = \"SSL\""),
        load_env(&[("PARTITA_LOG__KAFKA__PROPERTIES__SECURITY__PROTOCOL", "SSL")]),
        load_set(&[("log.kafka.properties.\"security.protocol\"", "SSL")]),
        load_set(&[("log.kafka.properties.security.protocol", "SSL")]),
    ] {
        assert_eq!(layered.unwrap().config.log.kafka.properties["security.protocol"], "SSL");
    }
    let one_underscore = load_env(&[("PARTITA_LOG__KAFKA__PROPERTIES__LOG_LEVEL", "7")]).unwrap();
    assert_eq!(one_underscore.config.log.kafka.properties["log_level"], "7");
    let plain = load_file("[log.kafka.properties]\n\"linger.ms\" = 5\n\"enable.x\" = true").unwrap();
    let values: Vec<_> = plain.config.log.kafka.properties.values().collect();
    assert_eq!(values, ["true", "5"]);
}

#[test]
fn an_unknown_name_is_refused_with_its_place_and_the_nearest_known_one() {
    for (text, at, nearest) in [
        ("[memory]\nbudgets = 1", ":2)", "memory.budget?"),
        ("[log]\nknd = \"kafka\"", ":2)", "log.kind?"),
        ("[log.kafka]\nbootstrap = \"x:1\"", ":2)", "log.kafka.bootstrap_servers?"),
        ("\n\n[frontdoor]\nlisten = \"x\"", ":4)", "front_door.listen?"),
        ("[handler.recorder]\ndirectory = \"x\"", ":2)", "handler.recorder.dir?"),
        ("[retry]\nmax_backoff = \"1s\"", ":2)", "retry.backoff_max?"),
        ("[log.embeded]\ndir = \"x\"", ":2)", "log.embedded.dir?"),
    ] {
        let message = load_file(text).unwrap_err().0;
        assert!(message.contains(at) && message.ends_with(nearest), "{text}: {message}");
    }
    let message = load_file("[zzz]\nqqq = 1").unwrap_err().0;
    assert!(
        message.contains("zzz.qqq is not a setting") && message.contains("partita config print"),
        "{message}"
    );
    let message = load_set(&[("comit.interval", "1s")]).unwrap_err().0;
    assert!(message.contains("(--set)") && message.ends_with("did you mean commit.interval?"), "{message}");
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_known_one() {
    for (name, nearest) in [
        ("PARTITA_LOG_KIND", "PARTITA_LOG__KIND?"),
        ("PARTITA_LOG__KAFKA__BOOTSTRAP_SERVER", "PARTITA_LOG__KAFKA__BOOTSTRAP_SERVERS?"),
        ("PARTITA_LOG__KAFKA__PROPERTIES", "PARTITA_LOG__KAFKA__PROPERTIES?"),
    ] {
        let message = load_env(&[(name, "x")]).unwrap_err().0;
        assert!(message.contains(name) && message.ends_with(nearest), "{message}");
    }
    assert!(load_env(&[("PARTITA_XYZZY", "x")]).unwrap_err().0.contains("two underscores"));
}

#[test]
fn what_other_programs_put_into_the_environment_is_left_alone() {
    load_env(&[
        ("PATH", "/bin"),
        ("PARTITAX", "1"),
        ("PARTITA_CONFIG", "f.toml"),
        ("PARTITA_SERVICE_HOST", "10.0.0.1"),
        ("PARTITA_SERVICE_PORT", "8080"),
        ("PARTITA_SERVICE_PORT_HTTP", "8080"),
        ("PARTITA_PORT", "tcp://10.0.0.1:8080"),
        ("PARTITA_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PARTITA_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PARTITA_ADMIN_PORT_8081_TCP_PROTO", "tcp"),
        ("PARTITA_ADMIN_SERVICE_HOST", "10.0.0.1"),
    ])
    .unwrap();
}

#[test]
fn a_wrong_value_is_refused_with_its_place_what_was_found_and_an_example() {
    for (text, parts) in [
        (
            "[log.embedded]\npartitions = \"many\"",
            ["whole number", "the string \"many\"", ":2)", "partitions = 16"],
        ),
        ("log.embedded.partitions = -1", ["whole number", "the number -1", ":1)", "partitions = 16"]),
        ("[log]\nkind = \"redis\"", ["\"embedded\" or \"kafka\"", "\"redis\"", ":2)", "kind = \"kafka\""]),
        ("commit.interval = 5", ["duration", "the number 5", ":1)", "interval = \"1s\""]),
        ("memory.budget = \"a lot\"", ["size", "\"a lot\"", ":1)", "budget = \"512MiB\""]),
        ("front_door.listen = 8080", ["address", "the number 8080", ":1)", "listen = \"127.0.0.1:8080\""]),
        ("limits = 3", ["is a section", "the number 3", ":1)", "[limits]"]),
        ("[log.kafka]\nproperties = 3", ["is a section", "the number 3", ":2)", "[log.kafka.properties]"]),
        ("[log.kafka.properties]\na = [1]", ["a string", "an array", ":2)", "linger.ms"]),
        ("log.embedded.partitions = 5000000000", ["log.embedded.partitions", "5000000000", ":1)", ""]),
        ("a = = 1", [":1: ", "", "", "TOML"]),
    ] {
        let message = load_file(text).unwrap_err().0;
        for part in parts {
            assert!(message.contains(part), "{text}: {part:?} is not in: {message}");
        }
    }
    let message = load_env(&[("PARTITA_COMMIT__INTERVAL", "5")]).unwrap_err().0;
    assert!(
        message.contains("environment PARTITA_COMMIT__INTERVAL")
            && message.ends_with("PARTITA_COMMIT__INTERVAL=1s"),
        "{message}"
    );
    let message = load_set(&[("commit.interval", "5")]).unwrap_err().0;
    assert!(message.ends_with("--set commit.interval=1s"), "{message}");
}

#[test]
fn a_missing_file_is_refused_by_its_path() {
    let message = Loader::new().file("/no/such/file.toml").load().unwrap_err().0;
    assert!(message.contains("/no/such/file.toml") && message.contains("help:"), "{message}");
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (pairs, parts) in [
        (&[("memory.budget", "64MiB")][..], ["memory.budget", "raise the budget"]),
        (&[("limits.max_task", "0")], ["limits.max_task", "refuse every task"]),
        (&[("limits.max_task", "2GB"), ("memory.budget", "16GiB")], ["limits.max_task", "one record"]),
        (&[("log.embedded.partitions", "0")], ["log.embedded.partitions", "0 partitions"]),
        (&[("log.kind", "kafka"), ("log.kafka.partitions", "0")], ["log.kafka.partitions", "0 partitions"]),
        (&[("log.kind", "kafka"), ("log.kafka.topic", "a b")], ["log.kafka.topic", "no name for a topic"]),
        (&[("log.kind", "kafka"), ("log.kafka.bootstrap_servers", " ")], ["bootstrap_servers", "no broker"]),
        (&[("worker.drain_timeout", "10s")], ["worker.drain_timeout", "shutdown.deadline"]),
        (&[("retry.backoff", "1h")], ["retry.backoff", "retry.backoff_max"]),
        (&[("commit.interval", "0s")], ["commit.interval", "longer than 0"]),
        (&[("worker.threads", "0")], ["worker.threads", "at least 1"]),
        (&[("admin.listen", "127.0.0.1:8080")], ["admin.listen", "port of its own"]),
    ] {
        let message = load_set(pairs).unwrap_err().0;
        for part in parts {
            assert!(message.contains(part), "{pairs:?}: {message}");
        }
        assert!(message.contains("(--set)") && message.contains("\nhelp: "), "{message}");
    }
    load_set(&[("front_door.listen", "127.0.0.1:0"), ("admin.listen", "127.0.0.1:0")]).unwrap();
}

#[test]
fn what_is_printed_is_a_file_that_gives_the_same_settings() {
    let layered = Loader::new()
        .handler(RECORDER, recorder_defaults())
        .set("--set", "log.kind", "kafka")
        .set("--set", "memory.budget", "700000001")
        .set("--set", "worker.task_timeout", "1m 30s")
        .set("--set", "log.kafka.properties.client.id", "it's \"x\"")
        .set("--set", "handler.recorder.dir", "a b\\c")
        .load()
        .unwrap();
    let printed = layered.print();
    let again = load_file(&printed).unwrap();
    assert_eq!(toml::to_string(&again.config).unwrap(), toml::to_string(&layered.config).unwrap());
    assert!(printed.contains("kind = \"kafka\"    # --set; default \"embedded\""), "{printed}");
    assert!(printed.contains("# replication_factor = 3    # unset"), "{printed}");
    for setting in SETTINGS.iter().filter(|setting| setting.kind != Kind::Properties) {
        let name = setting.path.rsplit('.').next().unwrap();
        assert!(printed.contains(&format!("{name} = ")), "{}", setting.path);
    }
}

#[test]
fn no_secret_is_printed() {
    let secrets = [
        ("sasl.password", "hunter2-a"),
        ("ssl.key.pem", "hunter2-b"),
        ("ssl.key.password", "hunter2-c"),
        ("sasl.oauthbearer.client.secret", "hunter2-d"),
        ("sasl.oauthbearer.config", "hunter2-e"),
    ];
    let loader = secrets.iter().fold(Loader::new(), |loader, (name, value)| {
        loader.set("--set", format!("log.kafka.properties.{name}"), *value)
    });
    let loader = loader.set("--set", "admin.token", "hunter2-f");
    let printed =
        loader.set("--set", "log.kafka.properties.ssl.key.location", "/key.pem").load().unwrap().print();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("/key.pem") && printed.contains("sasl.password"), "{printed}");
    load_file(&printed).unwrap();
}

#[test]
fn a_program_that_names_no_handler_settings_may_put_anything_there() {
    let layered = Loader::new()
        .file(file("[handler.mine]\nurl = \"x\"\nlist = [1]").path())
        .set("--set", "handler.mine.depth", "3")
        .load()
        .unwrap();
    assert_eq!(layered.config.handler["mine"]["depth"].as_integer(), Some(3));
    assert_eq!(layered.config.handler["mine"]["url"].as_str(), Some("x"));
    assert!(load_file(&layered.print()).is_err(), "the recorder's program knows no handler.mine");
    assert!(Loader::new().file(file(&layered.print()).path()).load().is_ok());
}
