//! The transition table of one assignment, written out.

use super::super::assignment::{Effect, Input, Life};
use std::time::Duration;

const AT: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(2);

#[test]
fn every_input_in_every_state_leads_where_the_table_says() {
    use Effect as E;
    use Life as L;
    let inputs = [
        Input::Finished,
        Input::Drained,
        Input::Failed(AGAIN),
        Input::Discontinuity,
        Input::GiveUp,
        Input::Overdue,
        Input::RestartDue,
    ];
    let waiting = L::Restarting(AT);
    let again = L::Restarting(AGAIN);
    let table: [(Life, [(Life, Effect); 7]); 7] = [
        (
            L::Running,
            [
                (L::Running, E::Track),
                (L::Running, E::Refuse),
                (again, E::CloseAndStop),
                (L::Halted, E::CloseLane),
                (L::Draining, E::Drain),
                (L::Stopped, E::CloseAndStop),
                (L::Running, E::Nothing),
            ],
        ),
        (
            L::Halted,
            [
                (L::Halted, E::Track),
                (L::HaltedIdle, E::Nothing),
                (L::HaltedIdle, E::Stop),
                (L::Halted, E::Nothing),
                (L::Draining, E::Drain),
                (L::Stopped, E::Stop),
                (L::Halted, E::Nothing),
            ],
        ),
        (
            L::HaltedIdle,
            [
                (L::HaltedIdle, E::Refuse),
                (L::HaltedIdle, E::Refuse),
                (L::HaltedIdle, E::Refuse),
                (L::HaltedIdle, E::Nothing),
                (L::Stopped, E::Nothing),
                (L::Stopped, E::Nothing),
                (L::HaltedIdle, E::Nothing),
            ],
        ),
        (
            waiting,
            [
                (waiting, E::Refuse),
                (waiting, E::Refuse),
                (waiting, E::Refuse),
                (L::HaltedIdle, E::Nothing),
                (L::Stopped, E::Nothing),
                (L::Stopped, E::Nothing),
                (L::Running, E::Start),
            ],
        ),
        (
            L::Draining,
            [
                (L::Draining, E::Track),
                (L::Drained, E::Nothing),
                (L::Stopped, E::Stop),
                (L::Draining, E::Nothing),
                (L::Draining, E::Nothing),
                (L::Stopped, E::Stop),
                (L::Draining, E::Nothing),
            ],
        ),
        (
            L::Drained,
            [
                (L::Drained, E::Track),
                (L::Drained, E::Refuse),
                (L::Drained, E::Refuse),
                (L::Drained, E::Nothing),
                (L::Drained, E::Nothing),
                (L::Drained, E::Nothing),
                (L::Drained, E::Nothing),
            ],
        ),
        (
            L::Stopped,
            [
                (L::Stopped, E::Refuse),
                (L::Stopped, E::Refuse),
                (L::Stopped, E::Refuse),
                (L::Stopped, E::Nothing),
                (L::Stopped, E::Nothing),
                (L::Stopped, E::Nothing),
                (L::Stopped, E::Nothing),
            ],
        ),
    ];
    for (life, row) in table {
        for (input, expected) in inputs.into_iter().zip(row) {
            assert_eq!(life.on(input), expected, "{life:?} on {input:?}");
        }
    }
}

#[test]
fn no_input_brings_an_actor_back_to_a_partition_that_is_given_up() {
    for life in [Life::Drained, Life::Stopped] {
        for input in [Input::RestartDue, Input::GiveUp, Input::Overdue, Input::Discontinuity] {
            assert!(life.on(input).0.is_over());
        }
    }
}
