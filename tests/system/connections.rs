//! Idle connections and a slow upload cost the others neither time nor memory.

use partita_tests::{connections, server::Setup};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_and_a_slow_upload_leave_the_others_their_pace() {
    let setup = || Setup::embedded().set("memory.budget", "\"512MiB\"");
    let (crowded, alone) = (setup().start().await.unwrap(), setup().start().await.unwrap());
    let seen = connections::crowded_and_not(&crowded, &alone).await.unwrap();
    eprintln!("{seen:?}");
    assert!(seen.p99_beside <= 2 * seen.p99_without, "{seen:?}");
    assert!(seen.peak_resident <= (512 + 64) << 20, "{} MiB became resident", seen.peak_resident >> 20);
    crowded.is_sound().await.unwrap();
    alone.is_sound().await.unwrap();
}
