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
/// The poisoned key's task of this sequence is the first that is parked.
const POISON: u64 = 39;
/// Tasks of each key: the poisoned one's begin four before that, the neighbours' end before it.
const ROUNDS: u64 = POISON;
const FIRST: u64 = POISON - 4;
const NEIGHBOURS: u64 = 20;

/// A server, what was sent to it, and when to each neighbour.
struct Side {
    server: Server,
    client: Client,
    ledger: Ledger,
    sent: BTreeMap<Position, Duration>,
}

impl Side {
    async fn start(manners: &[&str]) -> Result<Self> {
        let setup = Setup::embedded().set("log.embedded.partitions", "1").journal_worker("worker", manners);
        let server = setup.start().await?;
        Ok(Self { client: server.client(), server, ledger: Ledger::default(), sent: BTreeMap::new() })
    }

    async fn post(&mut self, key: &str, sequence: u64) -> Result<()> {
        let payload = payload::make(key, sequence, 10_000);
        let invocation = self.ledger.invoke(key, sequence, &payload::digest(&payload));
        let now = clock::monotonic();
        let position = self.client.accept(key, payload).await?.position();
        self.ledger.answer(invocation, Outcome::Ok(position));
        if key != "poisoned" {
            self.sent.insert(position, now);
        }
        Ok(())
    }

    fn ends(&self) -> Result<Vec<Line>> {
        let lines = journal::read(self.server.setup().home())?;
        Ok(lines.into_iter().filter(|line| line.event == Event::End).collect())
    }

    /// From a neighbour's task's sending to its end, of the slowest in a hundred. Waits until all have ended.
    async fn p99(&self) -> Result<Duration> {
        wait::until("the neighbours' tasks have ended", SOON, async || {
            let ends = self.ends()?;
            let took = |line: &Line| Some(line.time - *self.sent.get(&line.entry.position())?);
            let mut took = ends.iter().filter_map(took).collect::<Vec<_>>();
            ensure!(took.len() == self.sent.len(), "{} of {}", took.len(), self.sent.len());
            took.sort_unstable();
            Ok(Some(took[took.len() * 99 / 100]))
        })
        .await
    }
}

/// The same is sent to a server where the key stays well, task by task in turn: whatever else the machine does, it does to both.
#[tokio::test(flavor = "multi_thread")]
async fn the_neighbours_of_a_poisoned_key_do_not_notice_and_its_redrive_is_whole_and_in_order() {
    let mut well = Side::start(&["--serve"]).await.unwrap();
    let mut ill = Side::start(&["--serve", "--every", &(POISON + 1).to_string(), "park"]).await.unwrap();
    for round in 0..ROUNDS {
        let neighbours = (0..NEIGHBOURS).map(|number| (format!("neighbour-{number}"), round));
        for (key, sequence) in neighbours.chain([("poisoned".to_owned(), FIRST + round)]) {
            for side in [&mut well, &mut ill] {
                side.post(&key, sequence).await.unwrap();
            }
        }
    }
    let (without, beside) = (well.p99().await.unwrap(), ill.p99().await.unwrap());
    eprintln!("p99 without a parked key {without:?}, beside one {beside:?}");
    assert!(beside <= without * 2 + Duration::from_millis(50), "{without:?}, then {beside:?}");
    well.server.is_sound().await.unwrap();

    let setup = ill.server.setup();
    let admin = format!("http://{}", setup.admin());
    let listed = setup.command(&["parked", "list", "--admin", &admin]).await.unwrap();
    assert!(listed.said().contains("poisoned") && !listed.said().contains("neighbour"), "{}", listed.said());
    std::fs::write(setup.home().join("mended"), "").unwrap();
    let redriven = setup.command(&["parked", "redrive", "--all", "--admin", &admin]).await.unwrap();
    assert_eq!(redriven.code, Some(0), "{}", redriven.said());
    wait::until("every task has ended", SOON, async || {
        let ended = ill.ends()?.len() as u64;
        ensure!(ended == ROUNDS * (NEIGHBOURS + 1), "{ended}");
        Ok(Some(()))
    })
    .await
    .unwrap();
    let ends = ill.ends().unwrap().iter().filter_map(Line::end).collect();
    let history = History { attempts: ill.ledger.attempts(), ends, steps: Vec::new() };
    assert_eq!(checkers::violations(&history, Bounds::default()), Vec::<String>::new());
    ill.server.is_sound().await.unwrap();
}
