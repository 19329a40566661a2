//! What is done to a run, and to which kind of group.

use anyhow::Result;
use partita_tests::{kafka::Kafka, load::Load, server::Setup};
use std::time::Duration;

/// `session.timeout.ms` of the workers: how long the group waits for one that is gone.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// `broker.session.timeout.ms` of the tests' brokers: how long the controller waits for one that is gone.
const BROKER_SESSION: Duration = Duration::from_secs(6);

/// `max.poll.interval.ms` of workers whose handlers are slower than that.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(6);

/// What is done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    WorkerKilled,
    WorkerStopped,
    WorkerPaused,
    WorkerCutOff,
    Rebalances,
    /// Workers come and go while more waits for their handlers than they may hold.
    RebalancesUnderPressure,
    DoorKilled,
    DoorCutOff,
    ClientsHangUp,
    BrokerStopped,
    BrokerKilled,
    BrokerPaused,
    BrokerDiskFull,
    ClocksJump,
    HandlerFails,
    HandlerHangs,
    HandlerSlow,
    /// Keys are parked; workers are killed before and during their redrive.
    Parking,
    Mixed,
    /// Whatever process it is, killed and started again, one after another for a while.
    AnyKilled,
}

impl Fault {
    pub(super) const ALL: [(Self, Group, &'static str); 28] = [
        (Self::WorkerKilled, Group::Cooperative, "worker killed (-9), started again"),
        (Self::WorkerKilled, Group::Consumer, "worker killed, `group.protocol=consumer`"),
        (Self::WorkerStopped, Group::Cooperative, "worker stopped (SIGTERM), started again"),
        (Self::WorkerPaused, Group::Cooperative, "worker paused beyond its session, continued"),
        (Self::WorkerPaused, Group::Consumer, "worker paused beyond its session, `group.protocol=consumer`"),
        (Self::WorkerCutOff, Group::Cooperative, "worker cut off from the brokers, one way or both"),
        (Self::WorkerCutOff, Group::Consumer, "worker cut off, `group.protocol=consumer`"),
        (Self::Rebalances, Group::Cooperative, "workers join and leave at random"),
        (Self::Rebalances, Group::Eager, "workers join and leave at random, eager (`range`)"),
        (Self::Rebalances, Group::Consumer, "workers join and leave at random, `group.protocol=consumer`"),
        (Self::Rebalances, Group::Static, "workers join and leave at random, static membership"),
        (
            Self::RebalancesUnderPressure,
            Group::Cooperative,
            "workers join and leave while partitions are paused",
        ),
        (Self::DoorKilled, Group::Cooperative, "front door killed (-9), started again"),
        (Self::DoorCutOff, Group::Cooperative, "front door cut off from the brokers, one way or both"),
        (Self::ClientsHangUp, Group::Cooperative, "clients hang up before they are answered"),
        (Self::BrokerStopped, Group::Cooperative, "broker stopped, started again"),
        (Self::BrokerKilled, Group::Cooperative, "broker killed (-9), started again"),
        (Self::BrokerPaused, Group::Cooperative, "broker paused for 8 s, continued"),
        (Self::BrokerDiskFull, Group::Cooperative, "broker's disk full, room made, started again"),
        (Self::ClocksJump, Group::Cooperative, "clocks jump, forward and back"),
        (Self::ClocksJump, Group::Static, "clocks jump, static membership"),
        (Self::HandlerFails, Group::Cooperative, "handler fails, panics, rejects"),
        (Self::HandlerHangs, Group::Cooperative, "handler hangs, is given up"),
        (Self::HandlerSlow, Group::Cooperative, "handler slower than `max.poll.interval.ms`"),
        (Self::Parking, Group::Cooperative, "keys parked and redriven, workers killed meanwhile"),
        (Self::Parking, Group::Consumer, "keys parked and redriven, `group.protocol=consumer`"),
        (Self::Mixed, Group::Cooperative, "three of these, one after another"),
        (Self::AnyKilled, Group::Cooperative, "any process killed (-9), again and again"),
    ];

    /// What `Mixed` draws from.
    pub(super) const MIXED: [Self; 11] = [
        Self::WorkerKilled,
        Self::WorkerStopped,
        Self::WorkerPaused,
        Self::WorkerCutOff,
        Self::Rebalances,
        Self::DoorKilled,
        Self::BrokerStopped,
        Self::BrokerKilled,
        Self::BrokerPaused,
        Self::BrokerDiskFull,
        Self::ClocksJump,
    ];

    /// What `AnyKilled` draws from.
    pub(super) const KILLED: [Self; 3] = [Self::WorkerKilled, Self::DoorKilled, Self::BrokerKilled];

    /// How the workers handle their tasks.
    pub(super) fn manners(self) -> &'static [&'static str] {
        match self {
            Self::HandlerFails => &[
                "--delay-ms",
                "1",
                "--every",
                "7",
                "fail",
                "--every",
                "11",
                "panic",
                "--every",
                "13",
                "reject",
            ],
            Self::HandlerHangs => &["--delay-ms", "1", "--every", "20", "hang"],
            Self::HandlerSlow => &["--delay-ms", "1", "--every", "50", "slow"],
            Self::Parking => &["--delay-ms", "2", "--every", "25", "park"],
            Self::RebalancesUnderPressure => &["--delay-ms", "100"],
            _ => &["--delay-ms", "4"],
        }
    }

    /// The front door's settings.
    pub(super) fn settle_door(self, setup: Setup, kafka: &Kafka) -> Result<Setup> {
        match self {
            Self::DoorCutOff => Ok(over_the_network(setup, kafka)),
            Self::ClocksJump | Self::Mixed => setup.clocked(),
            _ => Ok(setup),
        }
    }

    /// A worker's settings. Only the first is reached over a network that can be cut.
    pub(super) fn settle_worker(self, setup: Setup, worker: usize, kafka: &Kafka) -> Result<Setup> {
        match self {
            Self::WorkerCutOff if worker == 0 => Ok(over_the_network(setup, kafka)),
            Self::Mixed if worker == 0 => over_the_network(setup, kafka).clocked(),
            Self::Mixed | Self::ClocksJump => setup.clocked(),
            Self::HandlerSlow => {
                let setup = setup.set("worker.task_timeout", "\"30s\"").set("worker.drain_timeout", "\"2s\"");
                Ok(property(setup, "max.poll.interval.ms", &POLL_INTERVAL.as_millis().to_string()))
            }
            Self::RebalancesUnderPressure => {
                Ok(setup.set("memory.budget", "\"64MiB\"").set("limits.max_task", "\"16MB\""))
            }
            _ => Ok(setup),
        }
    }

    /// What the clients do.
    pub(super) fn load(self) -> Load {
        let pause = Duration::from_millis(50);
        let load =
            Load { tasks: u64::MAX, keys: 64, clients: 32, sizes: 1_000..=20_000, pause, ..Load::default() };
        match self {
            Self::ClientsHangUp => Load { hangs_up_within: Some(Duration::from_millis(60)), ..load },
            Self::RebalancesUnderPressure => {
                Load { clients: 8, sizes: 50_000..=200_000, pause: Duration::ZERO, ..load }
            }
            _ => load,
        }
    }

    /// Whether owners of partitions may be gone without having committed what they did.
    pub(super) fn is_abrupt(self) -> bool {
        !matches!(
            self,
            Self::WorkerStopped
                | Self::DoorKilled
                | Self::DoorCutOff
                | Self::ClientsHangUp
                | Self::HandlerFails
                | Self::HandlerHangs
                | Self::HandlerSlow
        )
    }

    /// How long a partition may stand still, where that is known. After the loss of one worker: a session, and three seconds. After that of a
    /// broker: until the controller has noticed it; then, if it was the group's coordinator, every member's session may have ended, and
    /// the group waits as long again for those that do not come back.
    pub(super) fn recovers_within(self) -> Option<Duration> {
        let reserve = Duration::from_secs(3);
        match self {
            Self::WorkerKilled | Self::WorkerPaused => Some(SESSION + reserve),
            // One that hears nothing joins anew, is given partitions again, and does not hear of that either.
            Self::WorkerCutOff => Some(SESSION + SESSION + reserve),
            Self::BrokerStopped | Self::BrokerKilled | Self::BrokerPaused | Self::BrokerDiskFull => {
                Some(BROKER_SESSION + SESSION + SESSION + reserve)
            }
            _ => None,
        }
    }

    /// How long what is left may take when the load has ended.
    pub(super) fn ends_within(self) -> Duration {
        match self {
            // Behind slow handlers much waits.
            Self::HandlerSlow | Self::RebalancesUnderPressure => Duration::from_secs(240),
            _ => Duration::from_secs(60),
        }
    }

    /// Whether a producer may lose a partition's leader: INVARIANTS.md, 10.
    pub(super) fn moves_leaders(self) -> bool {
        matches!(
            self,
            Self::BrokerStopped
                | Self::BrokerKilled
                | Self::BrokerPaused
                | Self::BrokerDiskFull
                | Self::Mixed
                | Self::AnyKilled
        )
    }
}

/// How the workers' group works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// The default.
    Cooperative,
    Eager,
    /// KIP-848: the brokers assign.
    Consumer,
    /// `group.instance.id`.
    Static,
}

impl Group {
    pub(super) fn settle(self, setup: Setup, worker: usize) -> Setup {
        let session = SESSION.as_millis().to_string();
        match self {
            Self::Cooperative => property(setup, "session.timeout.ms", &session),
            Self::Eager => {
                let setup = property(setup, "session.timeout.ms", &session);
                property(setup, "partition.assignment.strategy", "range")
            }
            Self::Consumer => property(setup, "group.protocol", "consumer"),
            Self::Static => {
                let setup = property(setup, "session.timeout.ms", &session);
                property(setup, "group.instance.id", &format!("worker-{worker}"))
            }
        }
    }
}

fn property(setup: Setup, name: &str, value: &str) -> Setup {
    setup.set(&format!("log.kafka.properties.\"{name}\""), format!("\"{value}\""))
}

fn over_the_network(setup: Setup, kafka: &Kafka) -> Setup {
    setup.set("log.kafka.bootstrap_servers", format!("\"{}\"", kafka.far_bootstrap()))
}

/// Sessions of `group.protocol=consumer` are the brokers' to set.
pub(super) const BROKERS: &str = "group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500";
