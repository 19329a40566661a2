//! The fence: which of a partition's owners may write.

use super::*;
use fence::Fence;

const ONE: &[u8] = b"one";

async fn under(epoch: u64, offset: u64) -> Chunk {
    Chunk { epoch, ..chunk(0, offset, ONE).await }
}

async fn write(recorder: &mut Recorder, epoch: u64, offset: u64) -> Result<(), TaskError> {
    record(recorder, "k", under(epoch, offset).await, ONE).await
}

fn reason(result: Result<(), TaskError>) -> String {
    match result.unwrap_err() {
        TaskError::Unavailable { dependency, .. } => dependency,
        other => panic!("{other}"),
    }
}

/// The names of the claims to partition 0.
fn claims(fixture: &Fixture) -> Vec<String> {
    let files = files_below(fixture.fences());
    files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[actix_rt::test]
async fn a_writer_with_a_stale_fence_is_refused_and_writes_nothing() {
    let fixture = fixture(true);
    write(&mut fixture.recorder(), 8, 0).await.unwrap();
    let before = files_below(fixture.root());
    let mut stale = fixture.recorder();
    for offset in [0, 1] {
        let reason = reason(write(&mut stale, 7, offset).await);
        let claim = fixture.recordings.hold(&under(7, 0).await, false).await.unwrap().unwrap();
        assert_eq!(claim.epoch, 8);
        for part in ["partition 0", "is 8", "one's 7", claim.file.to_str().unwrap()] {
            assert!(reason.contains(part), "{reason}");
        }
    }
    assert_eq!(files_below(fixture.root()), before);
}

#[actix_rt::test]
async fn a_former_owner_that_goes_on_is_refused_once_its_successor_has_begun() {
    let fixture = fixture(true);
    let (mut former, mut later) = (fixture.recorder(), fixture.opened_again());
    write(&mut former, 7, 0).await.unwrap();
    write(&mut former, 7, 1).await.unwrap();
    write(&mut later, 8, 1).await.unwrap();
    reason(write(&mut former, 7, 2).await);
    write(&mut later, 8, 2).await.unwrap();
    // The partition comes back to the first process, under an epoch of its own.
    write(&mut fixture.recorder(), 9, 3).await.unwrap();
    reason(write(&mut later, 8, 3).await);
    assert_eq!(offsets(&fixture.recordings, "k").await, [0, 1, 2, 3]);
    let epochs: Vec<_> =
        fixture.recordings.chunks("k").await.unwrap().iter().map(|(one, _)| one.epoch).collect();
    assert_eq!(epochs, [7, 7, 8, 9]);
    assert_eq!(claims(&fixture), ["9"]);
}

#[actix_rt::test]
async fn a_handler_that_is_made_anew_under_the_same_epoch_goes_on() {
    let fixture = fixture(true);
    let (mut first, mut second) = (fixture.recorder(), fixture.recorder());
    for offset in 0..3 {
        write(&mut first, 7, offset).await.unwrap();
        write(&mut second, 7, offset + 10).await.unwrap();
    }
    assert_eq!(claims(&fixture), ["7"]);
}

#[actix_rt::test]
async fn a_claim_outlives_the_process_that_made_it() {
    for sync in [true, false] {
        let fixture = fixture(sync);
        write(&mut fixture.recorder(), 1 << 40, 0).await.unwrap();
        let mut next = fixture.opened_again();
        reason(write(&mut next, (1 << 40) - 1, 1).await);
        write(&mut next, 1 << 40, 1).await.unwrap();
    }
}

#[actix_rt::test]
async fn topics_and_partitions_have_fences_of_their_own() {
    let fixture = fixture(true);
    write(&mut fixture.recorder(), 8, 0).await.unwrap();
    let other_partition = Chunk { partition: 1, ..under(1, 0).await };
    record(&mut fixture.recorder(), "k", other_partition, ONE).await.unwrap();
    let made_anew = Chunk { topic_id: "Topic-1".into(), ..under(1, 1).await };
    record(&mut fixture.recorder(), "k", made_anew, ONE).await.unwrap();
    assert_eq!(files_below(fixture.fences()).len(), 3);
}

#[actix_rt::test]
async fn fences_are_no_recordings() {
    let fixture = fixture(true);
    fixture.record("k", 0, ONE).await.unwrap();
    let (listed, more) = fixture.recordings.list(None, 10).await.unwrap();
    assert_eq!((listed.len(), listed[0].key.as_str(), more), (1, "k", false));
    assert!(fixture.recordings.chunks(fence::FENCES).await.unwrap().is_empty());
    assert_eq!(key_path::decode(fence::FENCES), None);
    fixture.record(fence::FENCES, 1, ONE).await.unwrap();
    assert_eq!(offsets(&fixture.recordings, fence::FENCES).await, [1]);
}

#[actix_rt::test]
async fn what_a_crash_left_of_a_claim_neither_lowers_the_fence_nor_blocks_the_owner() {
    let fixture = fixture(true);
    write(&mut fixture.recorder(), 8, 0).await.unwrap();
    let place = files_below(fixture.fences())[0].parent().unwrap().to_owned();
    // Claims that should have gone; torn or foreign content; names that no claim has.
    for name in ["3", "7", "+9", "09", "9.tmp", "x", "99999999999999999999999"] {
        std::fs::write(place.join(name), "\0torn").unwrap();
    }
    reason(write(&mut fixture.opened_again(), 7, 1).await);
    write(&mut fixture.opened_again(), 8, 1).await.unwrap();
    // A claim of which only the directory was written.
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    write(&mut fixture.opened_again(), 7, 2).await.unwrap();
    assert_eq!(claims(&fixture), ["7"]);
}

#[actix_rt::test]
async fn a_fence_that_cannot_be_read_is_waited_for_and_nothing_is_written_meanwhile() {
    let fixture = fixture(true);
    // A file where the directory should be: fails for root too.
    std::fs::write(fixture.fences(), "").unwrap();
    let mut recorder = fixture.recorder();
    reason(write(&mut recorder, 7, 0).await);
    assert!(fixture.files().is_empty());
    std::fs::remove_file(fixture.fences()).unwrap();
    write(&mut recorder, 7, 0).await.unwrap();
}

#[actix_rt::test]
async fn an_operator_who_removes_the_claim_that_the_refusal_names_lets_the_lesser_epoch_in() {
    let fixture = fixture(true);
    let (mut old_group, mut new_group) = (fixture.recorder(), fixture.recorder());
    write(&mut old_group, 9, 0).await.unwrap();
    reason(write(&mut new_group, 1, 1).await);
    let claim = fixture.recordings.hold(&under(1, 1).await, false).await.unwrap().unwrap();
    std::fs::remove_file(claim.file).unwrap();
    write(&mut new_group, 1, 1).await.unwrap();
    // Where it was an error, the owner's claim stands again.
    write(&mut old_group, 9, 2).await.unwrap();
    reason(write(&mut new_group, 1, 3).await);
}

#[actix_rt::test]
async fn of_claimants_at_the_same_time_the_greatest_alone_goes_on() {
    for round in 0..50 {
        let fixture = fixture(false);
        let mut fences = Vec::new();
        for epoch in 1..=6 {
            fences.push(Fence::of(&under(epoch, 0).await, &fixture.root(), false));
        }
        let (first, last) = std::thread::scope(|scope| {
            let claimants: Vec<_> =
                fences.iter().map(|fence| scope.spawn(|| fence.hold(false).unwrap())).collect();
            let mut answers = claimants.into_iter().map(|claimant| claimant.join().unwrap());
            (answers.next().unwrap(), answers.next_back().unwrap())
        });
        assert_eq!(last, None, "round {round}: the greatest was refused by {first:?}");
        for (fence, epoch) in fences.iter().zip(1..) {
            assert_eq!(fence.hold(true).unwrap().map(|later| later.epoch), (epoch < 6).then_some(6));
        }
    }
}
