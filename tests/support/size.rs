//! The size of a run: the default run is short, and the long one is a command in tests/README.md.

use crate::load::Load;

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// Tasks of the sizes that users have.
pub fn users() -> Load {
    Load { keys: 200, clients: 16, sizes: 10_000..=5_000_000, ..Load::default() }
}

/// A run of so many tasks and kills, unless `PARTITA_TEST_TASKS` and `PARTITA_TEST_KILLS` say otherwise: then it is of the sizes
/// that users have.
pub fn of_the_main_run(short: Load, kills: u64) -> (Load, u64) {
    let kills = number("PARTITA_TEST_KILLS", kills);
    let tasks = number("PARTITA_TEST_TASKS", short.tasks);
    (if tasks == short.tasks { short } else { Load { tasks, ..users() } }, kills)
}
