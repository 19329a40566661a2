//! Each row of the table of statuses, and no other, over real HTTP.

use partita_tests::{
    server::Setup,
    statuses::{self, Statuses},
};
use rusqlite::Connection;

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_table_is_reached_and_nothing_outside_it_is_answered() {
    let mut seen = Statuses::default();
    let (setup, partition) = statuses::of_a_partition_behind(&Setup::embedded(), &mut seen).await.unwrap();
    let log = Connection::open(setup.home().join("partita-data/log/log.db")).unwrap();
    let deleted =
        log.execute("DELETE FROM records WHERE partition = ?1 AND offset = 1", [partition]).unwrap();
    assert_eq!((deleted, log.close().is_ok()), (1, true));
    statuses::of_a_stuck_partition(&setup, &mut seen).await.unwrap();
    let setup = statuses::guarded(Setup::embedded()).unwrap().watched();
    let server = setup.start().await.unwrap();
    statuses::of_clients(&server, &mut seen).await.unwrap();
    setup.watch().set_broken(true).unwrap();
    // The first one's end is not known; then it is known that nothing can be written.
    statuses::refused_with(&server, &mut seen, "unknown_outcome").await.unwrap();
    statuses::refused_with(&server, &mut seen, "log_away").await.unwrap();
    setup.watch().set_broken(false).unwrap();
    setup.watch().set_full(true).unwrap();
    statuses::refused_with(&server, &mut seen, "log_full").await.unwrap();
    setup.watch().set_full(false).unwrap();
    server.is_sound().await.unwrap();
    statuses::of_a_stop(server.kill().start().await.unwrap(), &mut seen).await.unwrap();
    seen.are_complete(&["log_full"]).unwrap();
}
