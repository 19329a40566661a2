//! The member under random histories, judged by a naive model; and its transition table.

mod model;
mod table;
mod world;

use super::*;
use crate::Exit;
use proptest::prelude::*;
use world::{CONFIG, Op, World, op};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    #[test]
    fn no_history_breaks_assignment_commit_or_shutdown(
        ops in prop::collection::vec(op(), 1..100),
        answers_in_the_end in any::<bool>(),
    ) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.wind_up(answers_in_the_end);
    }

    #[test]
    fn every_history_can_be_shut_down_within_its_time(
        ops in prop::collection::vec(op(), 1..40),
        after in prop::collection::vec(op(), 0..40),
    ) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.apply(Op::Shutdown);
        for op in after {
            world.apply(op);
        }
        world.wind_up(false);
        prop_assert!(world.exit().is_some());
    }
}

const P: Partition = Partition(0);

/// A member that owns `P` from offset 0, and the epoch.
fn owner() -> (GroupMember, Epoch) {
    let mut member = GroupMember::new(CONFIG);
    let partitions = vec![(P, Offset(0))];
    member.on_event(Event::Assigned { intent: Intent(1), generation: 1, partitions }, Duration::ZERO);
    let epoch = member.partition(P).unwrap().epoch;
    (member, epoch)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn finished(epoch: Epoch, start: u64, end: u64) -> Event {
    Event::Finished { partition: P, epoch, offsets: Offset(start)..Offset(end) }
}

/// The commit among the actions.
fn commit(actions: &[Action]) -> Option<(crate::CommitId, &[(Partition, Offset)])> {
    actions.iter().find_map(|action| match action {
        Action::Commit { commit, offsets } => Some((*commit, offsets.as_slice())),
        _ => None,
    })
}

#[test]
fn an_assignment_starts_the_actors_before_it_is_answered() {
    let mut member = GroupMember::new(CONFIG);
    let partitions = vec![(P, Offset(7)), (Partition(3), Offset(0))];
    let actions = member.on_event(Event::Assigned { intent: Intent(9), generation: 4, partitions }, ms(0));
    let epochs = [Epoch::new(4, 1), Epoch::new(4, 1)];
    assert_eq!(
        actions,
        [
            Action::Start { partition: P, epoch: epochs[0], start: Offset(7) },
            Action::Start { partition: Partition(3), epoch: epochs[1], start: Offset(0) },
            Action::CompleteAssign {
                intent: Intent(9),
                lanes: vec![(P, epochs[0], Offset(7)), (Partition(3), epochs[1], Offset(0))],
            },
        ]
    );
}

#[test]
fn ends_are_committed_after_the_interval_and_only_once() {
    let (mut member, epoch) = owner();
    assert_eq!(member.on_event(finished(epoch, 0, 3), ms(5)), []);
    assert_eq!(member.next_deadline(), Some(ms(5) + CONFIG.commit_interval));
    let actions = member.on_event(Event::Tick, ms(5) + CONFIG.commit_interval);
    let (id, offsets) = commit(&actions).unwrap();
    assert_eq!(offsets, [(P, Offset(3))]);
    assert_eq!(member.on_event(Event::CommitDone { commit: id, committed: vec![P] }, ms(120)), []);
    assert_eq!(member.partition(P).unwrap().committed, Some(Offset(3)));
    assert_eq!(member.next_deadline(), None);
}

#[test]
fn an_end_that_somebody_waits_for_is_committed_at_once_and_later_ones_after_the_interval_again() {
    for ended_first in [true, false] {
        let (mut member, epoch) = owner();
        let wanted = Event::CommitWanted { partition: P, offset: Offset(2) };
        let actions = if ended_first {
            assert_eq!(member.on_event(finished(epoch, 0, 3), ms(5)), []);
            member.on_event(wanted, ms(6))
        } else {
            assert_eq!(member.on_event(wanted, ms(5)), []);
            member.on_event(finished(epoch, 0, 3), ms(6))
        };
        let (id, offsets) = commit(&actions).unwrap();
        assert_eq!(offsets, [(P, Offset(3))], "{ended_first}");
        member.on_event(Event::CommitDone { commit: id, committed: vec![P] }, ms(7));
        assert_eq!(member.on_event(finished(epoch, 3, 4), ms(8)), []);
        assert_eq!(member.next_deadline(), Some(ms(8) + CONFIG.commit_interval));
    }
    // What is before the task that is waited for is no hurry.
    let (mut member, epoch) = owner();
    member.on_event(Event::CommitWanted { partition: P, offset: Offset(3) }, ms(5));
    assert_eq!(member.on_event(finished(epoch, 0, 3), ms(6)), []);
    assert!(commit(&member.on_event(finished(epoch, 3, 4), ms(7))).is_some());
    let (mut member, _) = owner();
    assert_eq!(
        member.on_event(Event::CommitWanted { partition: Partition(99), offset: Offset(0) }, ms(5)),
        []
    );
}

#[test]
fn a_commit_that_failed_or_was_never_answered_is_made_again_with_what_has_ended_since() {
    for answered in [true, false] {
        let (mut member, epoch) = owner();
        member.on_event(finished(epoch, 0, 1), ms(0));
        let actions = member.on_event(Event::Tick, ms(100));
        let (id, _) = commit(&actions).unwrap();
        member.on_event(finished(epoch, 1, 4), ms(110));
        if answered {
            assert_eq!(member.on_event(Event::CommitDone { commit: id, committed: vec![] }, ms(120)), []);
        }
        let (now, offsets) = loop {
            let now = member.next_deadline().unwrap();
            let actions = member.on_event(Event::Tick, now);
            assert!(now < ms(5_000));
            if let Some((_, offsets)) = commit(&actions) {
                break (now, offsets.to_vec());
            }
        };
        assert_eq!(offsets, [(P, Offset(4))]);
        assert!(now <= ms(100) + CONFIG.commit_timeout + CONFIG.commit_interval, "{now:?}");
    }
}

#[test]
fn a_revocation_drains_commits_and_is_answered_in_this_order() {
    let (mut member, epoch) = owner();
    member.on_event(finished(epoch, 0, 2), ms(1));
    let actions = member.on_event(Event::Revoking { intent: Intent(2), partitions: vec![P] }, ms(2));
    assert_eq!(actions, [Action::CloseLane { partition: P, epoch }, Action::Drain { partition: P, epoch }]);
    assert_eq!(member.on_event(finished(epoch, 2, 3), ms(3)), []);
    let actions = member.on_event(Event::Drained { partition: P, epoch }, ms(4));
    let (id, offsets) = commit(&actions).unwrap();
    assert_eq!((offsets, actions.len()), (&[(P, Offset(3))][..], 1));
    let actions = member.on_event(Event::CommitDone { commit: id, committed: vec![P] }, ms(5));
    assert_eq!(actions, [Action::CompleteRevoke { intent: Intent(2) }]);
    assert_eq!(member.partition(P), None);
}

#[test]
fn a_task_that_outlasts_the_drain_is_stopped_and_what_it_reports_then_is_stale() {
    let (mut member, epoch) = owner();
    member.on_event(Event::Revoking { intent: Intent(2), partitions: vec![P] }, ms(0));
    let actions = member.on_event(Event::Tick, CONFIG.drain_timeout);
    assert_eq!(actions, [Action::Stop { partition: P, epoch }, Action::CompleteRevoke { intent: Intent(2) }]);
    let actions = member.on_event(finished(epoch, 0, 1), CONFIG.drain_timeout);
    assert_eq!(actions, [Action::Count(Counted::StaleReport)]);
}

#[test]
fn a_lost_partition_is_stopped_never_committed_and_its_revocation_still_answered() {
    let (mut member, epoch) = owner();
    member.on_event(finished(epoch, 0, 2), ms(1));
    member.on_event(Event::Revoking { intent: Intent(2), partitions: vec![P] }, ms(2));
    let actions = member.on_event(Event::Lost { partitions: vec![P] }, ms(3));
    assert_eq!(actions, [Action::Stop { partition: P, epoch }, Action::CompleteRevoke { intent: Intent(2) }]);
    assert_eq!(member.next_deadline(), None);
    assert_eq!(member.on_event(Event::Tick, ms(60_000)), []);
}

#[test]
fn a_partition_that_was_lost_and_came_back_learns_nothing_from_an_answer_to_its_former_commit() {
    let (mut member, epoch) = owner();
    member.on_event(finished(epoch, 0, 9), ms(0));
    let (id, _) = commit(&member.on_event(Event::Tick, ms(100))).unwrap();
    member.on_event(Event::Lost { partitions: vec![P] }, ms(101));
    let partitions = vec![(P, Offset(3))];
    member.on_event(Event::Assigned { intent: Intent(2), generation: 2, partitions }, ms(102));
    member.on_event(Event::CommitDone { commit: id, committed: vec![P] }, ms(103));
    assert_eq!(member.partition(P).unwrap().committed, None);
}

#[test]
fn a_partition_that_came_back_does_not_inherit_the_restart_it_was_waiting_for() {
    let (mut member, epoch) = owner();
    member.on_event(Event::ActorFailed { partition: P, epoch }, ms(0));
    member.on_event(Event::Lost { partitions: vec![P] }, ms(1));
    assert_eq!(member.next_deadline(), None);
}

#[test]
fn a_failed_actor_is_followed_by_another_under_a_new_epoch_after_a_growing_pause() {
    let (mut member, mut epoch) = owner();
    member.on_event(finished(epoch, 0, 2), ms(0));
    let mut now = ms(10);
    for pause in [50, 100, 200, 400, 400] {
        let actions = member.on_event(Event::ActorFailed { partition: P, epoch }, now);
        let closed = [Action::CloseLane { partition: P, epoch }, Action::Stop { partition: P, epoch }];
        assert!(actions.starts_with(&closed), "{actions:?}");
        assert_eq!(member.partition(P).unwrap().state, PartitionState::Restarting);
        now += ms(pause);
        let early = member.on_event(Event::Tick, now - ms(1));
        assert!(!early.iter().any(|action| matches!(action, Action::Start { .. })));
        let actions = member.on_event(Event::Tick, now);
        let next = member.partition(P).unwrap().epoch;
        assert!(next > epoch);
        epoch = next;
        let start = Offset(2);
        let again =
            [Action::Start { partition: P, epoch, start }, Action::Reopen { partition: P, epoch, start }];
        assert!(actions.ends_with(&again), "{actions:?}");
    }
}

#[test]
fn a_discontinuity_lets_the_actor_work_off_what_it_has_and_commits_it_and_no_more() {
    let (mut member, epoch) = owner();
    let actions = member.on_event(Event::Discontinuity { partition: P, epoch }, ms(0));
    assert_eq!(actions, [Action::CloseLane { partition: P, epoch }]);
    member.on_event(finished(epoch, 0, 5), ms(1));
    let actions = member.on_event(Event::Tick, ms(101));
    assert_eq!(commit(&actions).unwrap().1, [(P, Offset(5))]);
    let actions = member.on_event(Event::ActorFailed { partition: P, epoch }, ms(102));
    assert_eq!(actions, [Action::Stop { partition: P, epoch }]);
    for now in [1_000, 100_000] {
        let actions = member.on_event(Event::Tick, ms(now));
        assert!(!actions.iter().any(|action| matches!(action, Action::Start { .. })));
    }
    assert_eq!(member.partition(P).unwrap().state, PartitionState::Halted);
}

#[test]
fn a_shutdown_drains_commits_closes_and_exits_clean() {
    let (mut member, epoch) = owner();
    member.on_event(finished(epoch, 0, 2), ms(1));
    member.on_event(Event::Shutdown, ms(2));
    assert!(member.is_shutting_down());
    let actions = member.on_event(Event::Drained { partition: P, epoch }, ms(3));
    let (id, _) = commit(&actions).unwrap();
    let actions = member.on_event(Event::CommitDone { commit: id, committed: vec![P] }, ms(4));
    assert_eq!(actions, [Action::Close]);
    assert_eq!(member.on_event(Event::Closed, ms(5)), [Action::Exit(Exit::Clean)]);
}

#[test]
fn a_shutdown_that_nothing_answers_ends_within_its_time_and_says_that_it_was_cut_short() {
    let (mut member, epoch) = owner();
    member.on_event(finished(epoch, 0, 2), ms(1));
    member.on_event(Event::Shutdown, ms(2));
    let mut last = Vec::new();
    let mut now = ms(2);
    while let Some(deadline) = member.next_deadline() {
        assert!(deadline > now && deadline <= ms(2) + CONFIG.shutdown_timeout);
        now = deadline;
        last = member.on_event(Event::Tick, now);
    }
    assert_eq!(last, [Action::Exit(Exit::CutShort)]);
    assert_eq!(now, ms(2) + CONFIG.shutdown_timeout);
}

#[test]
fn an_offer_during_a_shutdown_is_answered_with_nothing() {
    let mut member = GroupMember::new(CONFIG);
    assert_eq!(member.on_event(Event::Shutdown, ms(0)), [Action::Close]);
    let partitions = vec![(P, Offset(0))];
    let actions = member.on_event(Event::Assigned { intent: Intent(5), generation: 1, partitions }, ms(1));
    assert_eq!(actions, [Action::CompleteAssign { intent: Intent(5), lanes: vec![] }]);
}

#[test]
fn a_fatal_error_and_an_unasked_close_stop_every_actor_and_commit_nothing() {
    for event in [Event::Fatal, Event::Closed] {
        let (mut member, epoch) = owner();
        member.on_event(finished(epoch, 0, 2), ms(1));
        let actions = member.on_event(event, ms(2));
        assert_eq!(actions, [Action::Stop { partition: P, epoch }, Action::Exit(Exit::Fatal)]);
        assert_eq!(member.next_deadline(), None);
    }
}

#[test]
fn a_static_member_s_next_life_has_greater_epochs_under_the_same_generation() {
    let epochs_of = |birth: u32, partitions: &[Partition]| -> Vec<Epoch> {
        let mut member = GroupMember::new(MemberConfig { birth, ..CONFIG });
        let partitions = partitions.iter().map(|&partition| (partition, Offset(0))).collect();
        let event = Event::Assigned { intent: Intent(1), generation: 3, partitions };
        let started = |action| match action {
            Action::Start { epoch, .. } => Some(epoch),
            _ => None,
        };
        member.on_event(event, Duration::ZERO).into_iter().filter_map(started).collect()
    };
    let all: Vec<Partition> = (0..768).map(Partition).collect();
    let (first, second) = (epochs_of(100, &all), epochs_of(102, &all));
    assert_eq!((first.len(), second.len()), (768, 768));
    assert!(first.iter().zip(&second).all(|(first, second)| first < second));
}
