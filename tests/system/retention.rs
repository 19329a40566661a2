//! What was handled long enough ago is deleted, a little at a time.

use partita_tests::{checkers, load::Load, observe::Observer, random::Random, server::Setup, wait};
use std::{path::Path, time::Duration};

const DELETION: &str = "partita_embedded_deletion_duration_seconds";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_deletion_holds_appends_up_for_no_more_than_100_ms_and_its_room_is_used_again() {
    let server = Setup::embedded().set("log.embedded.retention", "\"500ms\"").start().await.unwrap();
    let mut random = Random::from_env();
    let small =
        Load { name: "small", tasks: 12_000, keys: 60, clients: 8, sizes: 1_000..=20_000, ..Load::default() };
    let large = Load {
        name: "large",
        tasks: 24,
        keys: 4,
        clients: 2,
        sizes: 10_000_000..=60_000_000,
        ..Load::default()
    };
    let mut running =
        [small, large].map(|load| load.start(server.setup().front(), Random::new(random.bits())));
    for load in &mut running {
        load.finish().await.unwrap();
    }
    let stored: u64 = 24 * 20_000_000;
    let steps = |metrics: &partita_tests::metrics::Metrics| {
        let within = |le| metrics.sum_where(&format!("{DELETION}_bucket"), "le", le);
        (metrics.sum(&format!("{DELETION}_count")).unwrap_or(0.0), within("0.1"), within("0.5"))
    };
    let metrics = wait::until("deletions", Duration::from_secs(30), async || {
        let metrics = server.metrics().await?;
        Ok((steps(&metrics).0 >= 30.0).then_some(metrics))
    })
    .await
    .unwrap();
    let (all, within, nearly) = steps(&metrics);
    let file = std::fs::metadata(log_of(server.setup().home())).unwrap().len();
    eprintln!("{all} deletions, {within} of them within 100 ms; the file has {} MB", file / 1_000_000);
    // A disk that others keep busy may be late now and then.
    assert!(within >= 0.97 * all && nearly == all, "{} of {all} took longer than 100 ms", all - within);
    assert!(file < stored, "the file has {file} bytes: nothing of it is used again");
    for load in &mut running {
        let ledger = load.finish().await.unwrap();
        server.committed_is_end(16, &ledger.acknowledged(), Duration::from_secs(30)).await.unwrap();
        let mut observer = Observer::default();
        observer.look(&server.client(), &[]).await.unwrap();
        let history = observer.history(&ledger);
        let ends: Vec<_> = history.ends.into_iter().filter(|end| end.key.starts_with(load.name())).collect();
        assert_eq!(checkers::nothing_lost(&history.attempts, &ends), Vec::<String>::new());
        assert_eq!(checkers::in_order(&history.attempts, &ends), Vec::<String>::new());
    }
    server.is_sound().await.unwrap();
}

fn log_of(home: &Path) -> std::path::PathBuf {
    home.join("partita-data/log/log.db")
}
