//! A poisoned key in a busy partition: its neighbours do not notice, and after a redrive its tasks are whole and in order.

use anyhow::{Result, ensure};
use partita_tests::{
    checkers::{self, Bounds},
    client::Client,
    clock,
    history::{History, Outcome, Position},
    journal::{self, Event, Line},
    ledger::Ledger,
    payload,
    server::{Server, Setup},
    wait,
};
use std::{collections::BTreeMap, time::Duration};

const SOON: Duration = Duration::from_secs(60);
/// Tasks of each key in each phase: the last poisoned one of the first phase is the first that is parked.
const ROUNDS: u64 = 39;
const NEIGHBOURS: u64 = 20;

/// Posts rounds of one task of each neighbour, and one of the poisoned key, and says when.
async fn phase(
    client: &Client,
    ledger: &Ledger,
    name: &str,
    rounds: std::ops::Range<u64>,
) -> Result<BTreeMap<Position, Duration>> {
    let mut sent = BTreeMap::new();
    for round in rounds.clone() {
        let neighbours = (0..NEIGHBOURS).map(|number| (format!("{name}-{number}"), round - rounds.start));
        for (key, sequence) in neighbours.chain([("poisoned".to_owned(), round)]) {
            let payload = payload::make(&key, sequence, 10_000);
            let invocation = ledger.invoke(&key, sequence, &payload::digest(&payload));
            let now = clock::monotonic();
            let position = client.accept(&key, payload).await?.position();
            ledger.answer(invocation, Outcome::Ok(position));
            if key != "poisoned" {
                sent.insert(position, now);
            }
        }
    }
    Ok(sent)
}

fn ends(server: &Server) -> Result<Vec<Line>> {
    Ok(journal::read(server.setup().home())?.into_iter().filter(|line| line.event == Event::End).collect())
}

/// From a task's sending to its end, of the slowest in a hundred. Waits until all have ended.
async fn p99(server: &Server, sent: &BTreeMap<Position, Duration>) -> Result<Duration> {
    wait::until("the neighbours' tasks have ended", SOON, async || {
        let ends = ends(server)?;
        let mut took = ends
            .iter()
            .filter_map(|line| Some(line.time - *sent.get(&line.entry.position())?))
            .collect::<Vec<_>>();
        ensure!(took.len() == sent.len(), "{} of {}", took.len(), sent.len());
        took.sort_unstable();
        Ok(Some(took[took.len() * 99 / 100]))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_neighbours_of_a_poisoned_key_do_not_notice_and_its_redrive_is_whole_and_in_order() {
    let setup = Setup::embedded().set("log.embedded.partitions", "1");
    let setup = setup.journal_worker("worker", &["--serve", "--every", "40", "park"]);
    let server = setup.start().await.unwrap();
    let (client, ledger) = (server.client(), Ledger::default());
    let before = phase(&client, &ledger, "before", 0..ROUNDS).await.unwrap();
    let before = p99(&server, &before).await.unwrap();
    let beside = phase(&client, &ledger, "beside", ROUNDS..2 * ROUNDS).await.unwrap();
    let beside = p99(&server, &beside).await.unwrap();
    eprintln!("p99 before {before:?}, beside the parked key {beside:?}");
    assert!(beside <= before * 2 + Duration::from_millis(50), "{before:?}, then {beside:?}");

    let admin = format!("http://{}", server.setup().admin());
    let listed = setup.command(&["parked", "list", "--admin", &admin]).await.unwrap();
    assert!(listed.said().contains("poisoned") && !listed.said().contains("beside"), "{}", listed.said());
    std::fs::write(setup.home().join("mended"), "").unwrap();
    let redriven = setup.command(&["parked", "redrive", "--all", "--admin", &admin]).await.unwrap();
    assert_eq!(redriven.code, Some(0), "{}", redriven.said());
    wait::until("every task has ended", SOON, async || {
        let ended = ends(&server)?.len() as u64;
        ensure!(ended == 2 * ROUNDS * (NEIGHBOURS + 1), "{ended}");
        Ok(Some(()))
    })
    .await
    .unwrap();
    let ends = ends(&server).unwrap().iter().filter_map(Line::end).collect();
    let history = History { attempts: ledger.attempts(), ends, steps: Vec::new() };
    assert_eq!(checkers::violations(&history, Bounds::default()), Vec::<String>::new());
    server.is_sound().await.unwrap();
}
