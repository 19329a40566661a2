//! Requests that come again, over kill -9: each is stored once.

use partita_tests::{
    insistent::{self, Insistent},
    random::Random,
    server::Setup,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_insistent_clients_send_is_stored_once_whenever_the_process_is_killed() {
    let mut random = Random::from_env();
    let setup = Setup::embedded();
    let mut server = setup.start().await.unwrap();
    let insistent = Insistent { tasks: 2000, clients: 12, most: 300_000 };
    let mut running = insistent.start(&[setup.front()], Random::new(random.bits()));
    for kill in 1..=4 {
        running.stored_at_least(kill * 350 + random.below(50) as usize).await.unwrap();
        server = server.kill().start().await.unwrap();
    }
    let stored = running.finish().await.unwrap();
    insistent::each_was_stored_once(&server.client(), &stored).await.unwrap();
    insistent::all_are_known(&[setup.front()], &stored).await.unwrap();
    insistent::each_was_stored_once(&server.client(), &stored).await.unwrap();
    server.is_sound().await.unwrap();
}
