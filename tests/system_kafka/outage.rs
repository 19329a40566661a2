//! Kafka goes away: not ready with the reason, a prompt 503, recovery without help, nothing lost.

use crate::{PARTITIONS, created, judge};
use partita_tests::{
    checkers::Bounds,
    kafka::{Fault, Kafka},
    ledger::Ledger,
    load::Load,
    network::Cut,
    observe::Observer,
    payload,
    random::Random,
    server::Server,
};
use std::time::Duration;

const NOTICED_WITHIN: Duration = Duration::from_secs(8);
const RECOVERED_WITHIN: Duration = Duration::from_secs(90);
const PROMPT: Duration = Duration::from_secs(1);

/// It says that it is not ready and why, and from then on refuses every task promptly and for certain.
async fn is_away(server: &Server, ledger: &Ledger, probes: &mut u64) {
    let reason = server.not_ready(NOTICED_WITHIN).await.unwrap();
    assert!(reason.to_lowercase().contains("kafka") || reason.contains("broker"), "no reason: {reason}");
    let client = server.client();
    for _ in 0..5 {
        let task = payload::make("probe", *probes, 1_000);
        let probe = ledger.invoke("probe", *probes, &payload::digest(&task));
        *probes += 1;
        let answer = tokio::time::timeout(PROMPT, client.post("probe", task)).await.unwrap().unwrap();
        ledger.answer(probe, answer.outcome().unwrap());
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some(), "no Retry-After: {}", answer.text());
    }
    assert_eq!(client.get(&["v1", "recordings"]).await.unwrap().status, 200, "reads go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kafka_down_at_the_start_it_waits_and_begins_when_kafka_is_there() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    kafka.fault(Fault::Stop, 1).unwrap();
    let mut server = setup.spawn().unwrap();
    is_away(&server, &Ledger::default(), &mut 0).await;
    kafka.fault(Fault::Start, 1).unwrap();
    server.ready(RECOVERED_WITHIN).await.unwrap();
    server.client().accept("key", "task").await.unwrap();
    crate::committed_is_end(&kafka, PARTITIONS).await;
}

/// Something that is done to a cluster.
type Act<'a> = &'a dyn Fn();

/// Each of these happens and is mended under load: it says that it is away, and comes back by itself. In the end nothing is lost.
async fn survives(kafka: &Kafka, mut server: Server, faults: &[(Act<'_>, Act<'_>)]) {
    let load = Load { tasks: 100_000, keys: 60, sizes: 1_000..=100_000, ..Load::default() };
    let mut running = load.start(server.setup().front(), Random::from_env());
    let mut probes = 0;
    for (happens, mended) in faults {
        let accepted = running.accepted();
        running.accepted_at_least(accepted + 100).await.unwrap();
        happens();
        is_away(&server, &running.ledger, &mut probes).await;
        mended();
        server.ready(RECOVERED_WITHIN).await.unwrap();
    }
    let accepted = running.accepted();
    running.accepted_at_least(accepted + 100).await.unwrap();
    running.stop();
    let ledger = running.finish().await.unwrap();
    judge(Observer::default(), kafka, &server, &ledger, Bounds::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kafka_out_of_reach_one_way_or_both_nothing_is_lost_and_it_recovers_by_itself() {
    let kafka = Kafka::up_frail(1, "").unwrap();
    let network = kafka.network().await.unwrap();
    let far = format!("\"{}\"", kafka.far_bootstrap());
    let server =
        created(&kafka, PARTITIONS).await.set("log.kafka.bootstrap_servers", far).start().await.unwrap();
    let network = &network;
    let mended = || network.cut(None);
    let cut = |cut| move || network.cut(Some(cut));
    let (both, requests, answers) = (cut(Cut::Both), cut(Cut::Requests), cut(Cut::Answers));
    survives(&kafka, server, &[(&both, &mended), (&requests, &mended), (&answers, &mended)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kafka_going_down_while_serving_nothing_is_lost_and_it_recovers_by_itself() {
    let kafka = Kafka::up(1).unwrap();
    let server = created(&kafka, PARTITIONS).await.start().await.unwrap();
    let cluster = &kafka;
    let fault = |fault| move || cluster.fault(fault, 1).unwrap();
    let (pause, kill, stop) = (fault(Fault::Pause), fault(Fault::Kill), fault(Fault::Stop));
    let (go_on, start) = (fault(Fault::Continue), fault(Fault::Start));
    survives(&kafka, server, &[(&pause, &go_on), (&kill, &start), (&stop, &start)]).await;
}
