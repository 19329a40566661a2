//! What is done to a run, and to which kind of group.

use partita_tests::server::Setup;
use std::time::Duration;

/// `session.timeout.ms` of the workers: how long the group waits for one that is gone.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// `broker.session.timeout.ms`, as it is by default: how long the controller waits for a broker that is gone.
const BROKER_SESSION: Duration = Duration::from_secs(9);

/// What is done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    WorkerKilled,
    WorkerStopped,
    WorkerPaused,
    Rebalances,
    DoorKilled,
    BrokerStopped,
    BrokerKilled,
    BrokerPaused,
    HandlerFails,
    HandlerHangs,
    /// Keys are parked; workers are killed before and during their redrive.
    Parking,
    Mixed,
}

impl Fault {
    pub(super) const ALL: [(Self, Group, &'static str); 18] = [
        (Self::WorkerKilled, Group::Cooperative, "worker killed (-9), started again"),
        (Self::WorkerKilled, Group::Consumer, "worker killed, `group.protocol=consumer`"),
        (Self::WorkerStopped, Group::Cooperative, "worker stopped (SIGTERM), started again"),
        (Self::WorkerPaused, Group::Cooperative, "worker paused beyond its session, continued"),
        (Self::WorkerPaused, Group::Consumer, "worker paused beyond its session, `group.protocol=consumer`"),
        (Self::Rebalances, Group::Cooperative, "workers join and leave at random"),
        (Self::Rebalances, Group::Eager, "workers join and leave at random, eager (`range`)"),
        (Self::Rebalances, Group::Consumer, "workers join and leave at random, `group.protocol=consumer`"),
        (Self::Rebalances, Group::Static, "workers join and leave at random, static membership"),
        (Self::DoorKilled, Group::Cooperative, "front door killed (-9), started again"),
        (Self::BrokerStopped, Group::Cooperative, "broker stopped, started again"),
        (Self::BrokerKilled, Group::Cooperative, "broker killed (-9), started again"),
        (Self::BrokerPaused, Group::Cooperative, "broker paused for 8 s, continued"),
        (Self::HandlerFails, Group::Cooperative, "handler fails, panics, rejects"),
        (Self::HandlerHangs, Group::Cooperative, "handler hangs, is given up"),
        (Self::Parking, Group::Cooperative, "keys parked and redriven, workers killed meanwhile"),
        (Self::Parking, Group::Consumer, "keys parked and redriven, `group.protocol=consumer`"),
        (Self::Mixed, Group::Cooperative, "three of these, one after another"),
    ];

    /// What `Mixed` draws from.
    pub(super) const MIXED: [Self; 8] = [
        Self::WorkerKilled,
        Self::WorkerStopped,
        Self::WorkerPaused,
        Self::Rebalances,
        Self::DoorKilled,
        Self::BrokerStopped,
        Self::BrokerKilled,
        Self::BrokerPaused,
    ];

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
            Self::Parking => &["--delay-ms", "2", "--every", "25", "park"],
            _ => &["--delay-ms", "4"],
        }
    }

    /// Whether owners of partitions may be gone without having committed what they did.
    pub(super) fn is_abrupt(self) -> bool {
        !matches!(self, Self::WorkerStopped | Self::DoorKilled | Self::HandlerFails | Self::HandlerHangs)
    }

    /// How long a partition may stand still, where that is known. After the loss of one worker: a session, and three seconds. After that of a
    /// broker: until the controller has noticed it; then, if it was the group's coordinator, every member's session may have ended, and
    /// the group waits as long again for those that do not come back.
    pub(super) fn recovers_within(self) -> Option<Duration> {
        let reserve = Duration::from_secs(3);
        match self {
            Self::WorkerKilled | Self::WorkerPaused => Some(SESSION + reserve),
            Self::BrokerStopped | Self::BrokerKilled | Self::BrokerPaused => {
                Some(BROKER_SESSION + SESSION + SESSION + reserve)
            }
            _ => None,
        }
    }

    /// Whether a producer may lose a partition's leader: INVARIANTS.md, 10.
    pub(super) fn moves_leaders(self) -> bool {
        matches!(self, Self::BrokerStopped | Self::BrokerKilled | Self::BrokerPaused | Self::Mixed)
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
        let set = |setup: Setup, name: &str, value: &str| {
            setup.set(&format!("log.kafka.properties.\"{name}\""), format!("\"{value}\""))
        };
        let session = SESSION.as_millis().to_string();
        match self {
            Self::Cooperative => set(setup, "session.timeout.ms", &session),
            Self::Eager => {
                let setup = set(setup, "session.timeout.ms", &session);
                set(setup, "partition.assignment.strategy", "range")
            }
            Self::Consumer => set(setup, "group.protocol", "consumer"),
            Self::Static => {
                let setup = set(setup, "session.timeout.ms", &session);
                set(setup, "group.instance.id", &format!("worker-{worker}"))
            }
        }
    }
}

/// Sessions of `group.protocol=consumer` are the brokers' to set.
pub(super) const BROKERS: &str = "group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500";
