//! What must hold of the deliveries of tasks to a service (docs/push.md), over whatever log.

mod receiver;

pub use receiver::{Delivery, Receiver};

use crate::{
    client::{Answer, Client, Receipt},
    receipts,
    server::Setup,
    wait,
};
use anyhow::{Context, Result, bail, ensure};
use std::{collections::BTreeSet, time::Duration};

const SOON: Duration = Duration::from_secs(60);
/// Tasks of each key that are delivered in order, and at which of them the service is busy.
const TASKS: usize = 20;
const BUSY: usize = 7;
/// How long a busy service asks to be left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Over a log with several partitions: each key's tasks are delivered in order, one at a time, and the partitions side by side.
pub async fn keys_are_in_order_and_partitions_side_by_side(setup: &Setup) -> Result<()> {
    let receiver = Receiver::start().await?;
    // An attempt that was spent would park its task.
    let server = receiver.setup(setup).set("retry.attempts", "1").start().await?;
    in_order(&receiver, &server.client()).await.context("the order of a key")?;
    side_by_side(&receiver, &server.client()).await.context("side by side")?;
    server.is_sound().await
}

async fn in_order(receiver: &Receiver, client: &Client) -> Result<()> {
    const KEYS: [&str; 2] = ["one", "another"];
    let mut receipts = KEYS.map(|_| Vec::new());
    for number in 0..TASKS {
        for (key, receipts) in KEYS.into_iter().zip(&mut receipts) {
            receipts.push(post(client, key, number).await?);
        }
    }
    for (key, receipts) in KEYS.into_iter().zip(&receipts) {
        is_done(client, &receipts[TASKS - 1].id).await?;
        let deliveries = receiver.of_key(key);
        one_at_a_time(&deliveries)?;
        // The one that the service was too busy for comes again before the next.
        let numbers: Vec<_> = (0..=BUSY).chain(BUSY..TASKS).collect();
        ensure!(deliveries.len() == numbers.len(), "{key}: {} deliveries", deliveries.len());
        for (delivery, number) in deliveries.iter().zip(numbers) {
            is_of(delivery, &receipts[number], number).with_context(|| format!("{delivery:?}"))?;
        }
        let (busy, again) = (&deliveries[BUSY], &deliveries[BUSY + 1]);
        let asked = busy.answered.context("it was answered")?;
        ensure!(again.task() == busy.task(), "another id: {again:?}");
        ensure!(again.began - asked >= RETRY_AFTER, "it was not waited for: {:?}", again.began - asked);
    }
    Ok(())
}

/// The W3C trace context of a task.
fn trace(number: usize) -> [(&'static str, String); 2] {
    let parent = format!("00-{0:032x}-{0:016x}-01", number + 1);
    [("traceparent", parent), ("tracestate", format!("tests={number}"))]
}

/// Posts a task with a trace context of its own.
async fn post(client: &Client, key: &str, number: usize) -> Result<Receipt> {
    let word = if number == BUSY { "busy" } else { "task" };
    let mut request = client.http().post(client.url(&["v1", "tasks", key]));
    for (name, value) in trace(number) {
        request = request.header(name, value);
    }
    let answer = Answer::of(request.body(format!("{word} {number}")).send().await?).await?;
    ensure!(answer.status == 202, "{}: {}", answer.status, answer.text());
    answer.json()
}

/// Fails unless it is the first attempt of this task, with all that was sent with it.
fn is_of(delivery: &Delivery, receipt: &Receipt, number: usize) -> Result<()> {
    ensure!(delivery.payload.ends_with(&format!(" {number}")), "another payload");
    ensure!(delivery.task().ends_with(&format!("/{}", receipt.id)), "another id");
    ensure!(delivery.header("partita-attempt") == "1", "an attempt was spent");
    for (name, value) in trace(number) {
        ensure!(delivery.header(name) == value, "another {name}");
    }
    Ok(())
}

fn one_at_a_time(deliveries: &[Delivery]) -> Result<()> {
    for pair in deliveries.windows(2) {
        let answered = pair[0].answered.is_some_and(|answered| answered <= pair[1].began);
        ensure!(answered, "{:?} came before the end of {:?}", pair[1], pair[0]);
    }
    Ok(())
}

async fn side_by_side(receiver: &Receiver, client: &Client) -> Result<()> {
    let (mut partitions, mut ids) = (BTreeSet::new(), Vec::new());
    for number in 0..16 {
        let receipt = client.accept(&format!("held-{}", number % 8), "held").await?;
        partitions.insert(receipt.partition);
        ids.push(receipt.id);
    }
    ensure!(partitions.len() > 1, "all of them are in one partition");
    let under_way = || {
        let is_held = |delivery: &&Delivery| delivery.payload == "held" && delivery.answered.is_none();
        receiver.deliveries().iter().filter(is_held).count()
    };
    wait::until("a delivery of each partition is under way", SOON, async || {
        ensure!(under_way() >= partitions.len(), "{} of {}", under_way(), partitions.len());
        Ok(Some(()))
    })
    .await?;
    // Whatever else there is waits for these.
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(under_way() == partitions.len(), "{} in {} partitions", under_way(), partitions.len());
    receiver.release();
    for id in &ids {
        is_done(client, id).await?;
    }
    Ok(())
}

async fn is_done(client: &Client, id: &str) -> Result<()> {
    let body = receipts::told(client, id, "wait=done&timeout=60s").await?;
    ensure!(body["state"] == "done", "{body}");
    Ok(())
}

/// Over a log with one partition: a task that the service does not answer is tried again, then parked, and the later tasks of its key behind
/// it. The tasks of another key go on.
pub async fn what_is_not_answered_is_parked_and_holds_up_its_key_alone(setup: &Setup) -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let receiver = Receiver::start().await?;
    let setup = receiver.setup(setup).set("handler.http.timeout", format!("\"{}s\"", TIMEOUT.as_secs()));
    let server = setup.set("retry.attempts", "2").set("retry.backoff", "\"100ms\"").start().await?;
    let client = server.client();
    let silent = client.accept("stuck", "silent").await?.id;
    let behind = client.accept("stuck", "behind").await?.id;
    let other = client.accept("well", "well").await?.id;
    for (id, cause, attempts) in [(&silent, "attempts", 2), (&behind, "behind", 0)] {
        let body = receipts::told(&client, id, "wait=done&timeout=60s").await?;
        ensure!(body["state"] == "parked" && body["cause"] == cause, "{body}");
        ensure!(body["attempts"] == attempts, "{body}");
    }
    is_done(&client, &other).await?;

    let deliveries = receiver.of_key("stuck");
    let [first, second] = &deliveries[..] else { bail!("{deliveries:?}") };
    for (delivery, attempt) in [(first, "1"), (second, "2")] {
        ensure!(delivery.task().ends_with(&format!("/{silent}")), "{delivery:?}");
        ensure!(delivery.header("partita-attempt") == attempt, "{delivery:?}");
    }
    // It may take the service a while to see the first one.
    ensure!(first.task() == second.task() && second.began - first.began > TIMEOUT / 2, "{deliveries:?}");
    server.is_sound().await
}

/// A task whose delivery is under way when the process is killed is delivered again, under the same id and by a later owner.
pub async fn what_is_under_way_at_a_kill_is_delivered_again(setup: &Setup) -> Result<()> {
    let receiver = Receiver::start().await?;
    let server = receiver.setup(setup).start().await?;
    let id = server.client().accept("killed", "held").await?.id;
    delivered(&receiver, 1).await?;
    let server = server.kill().start().await?;
    delivered(&receiver, 2).await?;
    receiver.release();
    is_done(&server.client(), &id).await?;

    let deliveries = receiver.of_key("killed");
    let [first, second] = &deliveries[..] else { bail!("{deliveries:?}") };
    ensure!(first.task() == second.task() && first.task().ends_with(&format!("/{id}")), "{deliveries:?}");
    let epoch = |delivery: &Delivery| delivery.header("partita-epoch").parse::<u64>();
    ensure!(epoch(first)? < epoch(second)?, "{deliveries:?}");
    ensure!(first.answered.is_none() && second.answered.is_some(), "{deliveries:?}");
    server.is_sound().await
}

/// Waits until the key that is killed has so many deliveries.
async fn delivered(receiver: &Receiver, count: usize) -> Result<()> {
    wait::until("the task is delivered", SOON, async || {
        Ok((receiver.of_key("killed").len() >= count).then_some(()))
    })
    .await
}
