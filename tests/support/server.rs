//! The real binary: started, killed, stopped and started again, on the same directory and ports.

use crate::{
    client::Client, clock::Clock, disk::Watch, history::Position, metrics::Metrics, ports, process, wait,
};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tempfile::TempDir;

/// How long a server may take to get ready.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a command that is not a server may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(120);

/// The `partita` binary: `PARTITA_BIN`, else the one of this workspace, which is built first so that it is never stale.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("PARTITA_BIN") {
        Some(path) => path.into(),
        None => build().expect("PARTITA_BIN is not set, and the workspace's binary cannot be built"),
    })
}

/// Where the programs of this build are.
fn profile_dir() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    Ok(this.ancestors().nth(2).context("tests run from target/<profile>/deps")?.to_owned())
}

fn build() -> Result<PathBuf> {
    let profile = profile_dir()?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The binary comes with its own integration test. Selected like this, every dependency has the features that
    // `cargo test --workspace` gives it; `--package` would choose others and build librdkafka once more.
    cargo.args(["test", "--quiet", "--workspace", "--no-run", "--test", "cli"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo tells a test of its own package would be news to build scripts, which are run again for it, ring's for one.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
            cargo.env_remove(name);
        }
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status()?;
    ensure!(status.success(), "cargo build: {status}");
    Ok(profile.join("partita"))
}

/// A program, without this process's own `PARTITA_` variables: to it they would be settings.
fn partita(program: &Path) -> Command {
    let mut command = Command::new(program);
    let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("PARTITA_");
    for name in std::env::vars_os().map(|(name, _)| name).filter(ours) {
        command.env_remove(name);
    }
    command
}

/// Where a server lives and what it is told. Several servers of one test may share a directory's parts.
#[derive(Debug, Clone)]
pub struct Setup {
    home: Arc<TempDir>,
    settings: Vec<(String, String)>,
    role: Option<&'static str>,
    /// The arguments of a `journal-worker`, which is started instead of the binary.
    journal_worker: Option<Vec<String>>,
    front: SocketAddr,
    admin: SocketAddr,
    watch: Option<Watch>,
    clock: Option<Clock>,
    log_filter: Option<&'static str>,
}

impl Setup {
    /// An embedded log in a directory of its own, on free ports.
    pub fn embedded() -> Self {
        let home = Arc::new(tempfile::Builder::new().prefix("partita-test-").tempdir().expect("a directory"));
        let (front, admin) = (ports::address(), ports::address());
        let (settings, role, journal_worker) = (Vec::new(), None, None);
        let (watch, clock, log_filter) = (None, None, None);
        Self { home, settings, role, journal_worker, front, admin, watch, clock, log_filter }
    }

    /// The same directory, on other ports.
    pub fn beside(&self) -> Self {
        Self { front: ports::address(), admin: ports::address(), ..self.clone() }
    }

    /// Sets a setting by its dotted path. The value is TOML.
    pub fn set(mut self, path: &str, toml: impl Into<String>) -> Self {
        self.settings.retain(|(known, _)| known != path);
        self.settings.push((path.into(), toml.into()));
        self
    }

    /// The half of the service to run.
    pub fn role(mut self, role: &'static str) -> Self {
        self.role = Some(role);
        self
    }

    /// A worker that keeps a journal, `name.journal` in the home directory, with these manners.
    pub fn journal_worker(&self, name: &str, manners: &[&str]) -> Self {
        let mut arguments = vec![format!("{name}.journal")];
        arguments.extend(manners.iter().map(|&argument| argument.to_owned()));
        Self { journal_worker: Some(arguments), ..self.beside() }
    }

    /// The disk under the server is watched.
    pub fn watched(mut self) -> Self {
        self.watch = Some(Watch::over(self.home()));
        self
    }

    /// The watch over its disk.
    ///
    /// # Panics
    ///
    /// If it is not `watched`.
    pub fn watch(&self) -> &Watch {
        self.watch.as_ref().expect("a setup that is watched")
    }

    /// What the server logs.
    pub fn log_filter(mut self, filter: &'static str) -> Self {
        self.log_filter = Some(filter);
        self
    }

    /// The server goes by a clock of its own.
    pub fn clocked(mut self) -> Result<Self> {
        self.clock = Some(Clock::at(self.home().join(format!("clock-{}", self.front.port())))?);
        Ok(self)
    }

    /// The clock it goes by.
    ///
    /// # Panics
    ///
    /// If it is not `clocked`.
    pub fn clock(&self) -> &Clock {
        self.clock.as_ref().expect("a setup with a clock of its own")
    }

    /// The directory it runs in: the log and the recordings are below `partita-data`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The address of its front door.
    pub fn front(&self) -> SocketAddr {
        self.front
    }

    /// The address of its admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Runs another command of the binary with this configuration and returns what it did.
    pub async fn command(&self, arguments: &[&str]) -> Result<Finished> {
        let config = self.write_config()?.to_string_lossy().into_owned();
        let mut arguments = arguments.to_vec();
        arguments.extend(["--config", &config]);
        self.run(&arguments).await
    }

    /// Runs a command of the binary that has no configuration.
    pub async fn run(&self, arguments: &[&str]) -> Result<Finished> {
        // Files instead of pipes: a command that prints much never waits for this process to read it.
        let (stdout, stderr) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
        let mut command = partita(binary());
        command.args(arguments).current_dir(self.home()).stdin(Stdio::null());
        command.stdout(stdout.reopen()?).stderr(stderr.reopen()?);
        let mut child = command.spawn().with_context(|| format!("{}", binary().display()))?;
        let ended = wait::until("the command ends", COMMAND_WITHIN, async || Ok(child.try_wait()?)).await;
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let read = |path: &Path| fs::read_to_string(path);
        let (stdout, stderr) = (read(stdout.path())?, read(stderr.path())?);
        let status = ended.with_context(|| format!("partita {arguments:?}: {stdout}{stderr}"))?;
        Ok(Finished { code: status.code(), stdout, stderr })
    }

    /// Starts the server and waits until it is ready.
    pub async fn start(&self) -> Result<Server> {
        let mut server = self.spawn()?;
        server.ready(READY_WITHIN).await?;
        Ok(server)
    }

    /// Starts the server without waiting for anything.
    pub fn spawn(&self) -> Result<Server> {
        let config = self.write_config()?;
        let log_path = self.home().join(format!("server-{}.log", self.front.port()));
        let log = File::options().create(true).append(true).open(&log_path)?;
        let mut command = match &self.journal_worker {
            None => {
                let mut command = partita(binary());
                command.arg("serve").arg("--config").arg(config);
                if let Some(role) = self.role {
                    command.args(["--role", role]);
                }
                if let Some(filter) = self.log_filter {
                    command.args(["--log", filter]);
                }
                command
            }
            Some(arguments) => {
                let mut command = partita(&profile_dir()?.join("journal-worker"));
                command.arg(config).args(arguments);
                command
            }
        };
        if let Some(watch) = &self.watch {
            command.envs(watch.environment()?);
        }
        if let Some(clock) = &self.clock {
            command.envs(clock.environment()?);
        }
        command.current_dir(self.home()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Server { setup: self.clone(), child, log_path })
    }

    fn write_config(&self) -> Result<PathBuf> {
        let mut toml = format!("front_door.listen = \"{}\"\nadmin.listen = \"{}\"\n", self.front, self.admin);
        for (path, value) in &self.settings {
            toml.push_str(&format!("{path} = {value}\n"));
        }
        let path = self.home().join(format!("partita-{}.toml", self.front.port()));
        fs::write(&path, toml)?;
        Ok(path)
    }
}

/// A command that ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Finished {
    /// Everything that it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A server process. Dropping it kills it; if the test is failing, the end of its log is printed.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    child: Child,
    log_path: PathBuf,
}

/// One partition, as its owner sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct PartitionStatus {
    /// Which one.
    pub partition: u32,
    /// The next offset to read, as this assignment has committed it.
    pub committed: Option<u64>,
    /// The offset after the last record, as far as it is known.
    pub high_watermark: Option<u64>,
    /// The one minus the other.
    pub lag: Option<u64>,
    /// Tasks that are parked.
    pub parked_tasks: u64,
    /// Whether fetching is paused.
    pub paused: bool,
    /// Why it is halted, where it is.
    pub halted: Option<String>,
}

/// What `/readyz` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// 200 or 503.
    pub status: u16,
    /// The reasons.
    pub body: String,
}

impl Server {
    /// What it was started with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// A client of its front door.
    pub fn client(&self) -> Client {
        Client::new(self.setup.front)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `/readyz` answers 200. Fails at once if the process ends.
    pub async fn ready(&mut self, patience: Duration) -> Result<()> {
        let admin = Client::new(self.setup.admin);
        let log_path = self.log_path.clone();
        let child = &mut self.child;
        let ended = wait::until("ready", patience, async || {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(Err(format!("it ended with {status}:\n{}", tail(&log_path)))));
            }
            let answer = admin.get(&["readyz"]).await?;
            ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
            Ok(Some(Ok(())))
        })
        .await?;
        ended.map_err(anyhow::Error::msg)
    }

    /// What `/readyz` says now.
    pub async fn readiness(&self) -> Result<Readiness> {
        let answer = Client::new(self.setup.admin).get(&["readyz"]).await?;
        Ok(Readiness { status: answer.status, body: answer.text() })
    }

    /// Waits until it is not ready, and says why it is not.
    pub async fn not_ready(&self, patience: Duration) -> Result<String> {
        wait::until("not ready", patience, async || {
            let readiness = self.readiness().await?;
            Ok((readiness.status == 503).then_some(readiness.body))
        })
        .await
    }

    /// Waits until a stop that was asked for has begun.
    pub async fn not_ready_or_gone(&self, patience: Duration) -> Result<()> {
        wait::until("the stop begins", patience, async || {
            let readiness = self.readiness().await;
            Ok(readiness.map_or(true, |readiness| readiness.status == 503).then_some(()))
        })
        .await
    }

    /// A scrape of `/metrics`.
    pub async fn metrics(&self) -> Result<Metrics> {
        let answer = Client::new(self.setup.admin).get(&["metrics"]).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(Metrics::parse(&answer.text()))
    }

    /// What `/admin/v1/partitions` says of each partition that it owns.
    pub async fn partitions(&self) -> Result<Vec<PartitionStatus>> {
        #[derive(Deserialize)]
        struct Body {
            partitions: Vec<PartitionStatus>,
        }
        let answer = Client::new(self.setup.admin).get(&["admin", "v1", "partitions"]).await?;
        Ok(answer.json::<Body>()?.partitions)
    }

    /// Waits until the end of every partition is committed, and every acknowledged task is before that end: a server
    /// learns of its log's end only now and then, and may take an old end for the present one.
    pub async fn committed_is_end(
        &self,
        partitions: usize,
        acknowledged: &[Position],
        patience: Duration,
    ) -> Result<()> {
        wait::until("committed = end on every partition", patience, async || {
            let seen = self.partitions().await?;
            ensure!(seen.len() == partitions, "it owns {} of {partitions} partitions", seen.len());
            for partition in seen {
                ensure!(partition.lag == Some(0), "{partition:?}");
                let own = acknowledged.iter().filter(|position| position.partition.0 == partition.partition);
                let last = own.map(|position| position.offset.0).max();
                ensure!(last < partition.high_watermark, "acknowledged up to {last:?}: {partition:?}");
            }
            Ok(Some(()))
        })
        .await
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) -> Result<()> {
        process::signal(self.pid(), name)
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub fn kill(mut self) -> Setup {
        self.end();
        self.setup.clone()
    }

    /// Asks it to stop and returns how it ended.
    pub async fn stop(mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.ended(patience).await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, patience: Duration) -> Result<ExitStatus> {
        wait::until("the process ends", patience, async || Ok(self.child.try_wait()?)).await
    }

    /// Everything it has logged, earlier lives on the same ports included.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// Fails if the log has a panic in it.
    pub fn never_panicked(&self) -> Result<()> {
        match self.log().lines().find(|line| line.contains("panicked at")) {
            Some(line) => bail!("the server's log has a panic: {line}"),
            None => Ok(()),
        }
    }

    /// Fails if it has panicked or seen an invariant broken, earlier lives on the same ports included.
    pub async fn is_sound(&self) -> Result<()> {
        self.never_panicked()?;
        self.no_invariant_broke().await
    }

    /// Fails if it counts a broken invariant, or the log of an earlier life speaks of one.
    pub async fn no_invariant_broke(&self) -> Result<()> {
        let metrics = self.metrics().await?;
        // None means none only on a page that has the others.
        ensure!(metrics.sum("partita_ready").is_some(), "it has no page of metrics");
        let violations = metrics.sum("partita_invariant_violations_total").unwrap_or(0.0);
        ensure!(violations == 0.0, "partita_invariant_violations_total is {violations}");
        match self.log().lines().find(|line| line.contains("an invariant was about to break")) {
            Some(line) => bail!("an earlier life of the server said: {line}"),
            None => Ok(()),
        }
    }

    fn end(&mut self) {
        // Both fail only if the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log_path.display(), tail(&self.log_path));
        }
    }
}

fn tail(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
