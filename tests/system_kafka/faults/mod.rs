//! Every fault in turn on three brokers: a front door, three workers that keep journals, a load, and a table of what was seen.
//!
//! Short in CI: one run of each. `PARTITA_TEST_RUNS=20` for many; `PARTITA_TEST_FAULTS` names some only.

mod fault;
mod run;

use anyhow::{Context, Result};
use fault::{BROKERS, Fault, Group};
use partita_tests::{kafka::Kafka, random::Random, size::number};
use run::{Run, Seen};
use std::time::{Duration, Instant};

/// The row of a fault, over its runs.
fn row(name: &str, runs: &[Seen], failed: usize) -> String {
    let sum = |of: fn(&Seen) -> u64| runs.iter().map(of).sum::<u64>();
    let mut standstills: Vec<Duration> = runs.iter().map(|seen| seen.standstill).collect();
    standstills.sort();
    let at = |index: usize| standstills.get(index).map_or(0.0, Duration::as_secs_f64);
    format!(
        "| {name} | {} | {} | {} | {} | {} | {} of {} | {} | {:.1} s, {:.1} s, {:.1} s |",
        runs.len() + failed,
        sum(|seen| seen.acknowledged),
        sum(|seen| seen.lost as u64),
        sum(|seen| seen.reordered as u64),
        sum(|seen| seen.stale as u64),
        sum(|seen| seen.again),
        sum(|seen| seen.bound),
        sum(|seen| seen.others as u64) + failed as u64,
        at(standstills.len() / 2),
        at((standstills.len() * 95).div_ceil(100).saturating_sub(1)),
        at(standstills.len().saturating_sub(1)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_with_a_bound_on_the_standstill_keeps_it_and_loses_and_reorders_nothing() {
    all(|fault| fault.recovers_within().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_without_a_bound_on_the_standstill_loses_and_reorders_nothing() {
    all(|fault| fault.recovers_within().is_none()).await;
}

async fn all(of: impl Fn(Fault) -> bool) {
    let mut random = Random::from_env();
    let (runs, only) =
        (number("PARTITA_TEST_RUNS", 1), std::env::var("PARTITA_TEST_FAULTS").unwrap_or_default());
    let is_chosen = |name: &str| only.is_empty() || only.split(',').any(|part| name.contains(part));
    let chosen: Vec<_> =
        Fault::ALL.into_iter().filter(|(fault, _, name)| of(*fault) && is_chosen(name)).collect();
    if chosen.is_empty() {
        return println!("no fault of these is named by PARTITA_TEST_FAULTS");
    }
    let kafka = Kafka::up_frail(3, BROKERS).unwrap();
    let mut table = vec![
        "| fault | runs | acknowledged | lost | reordered | stale starts | handled again, of allowed | other | standstill: median, 95 of 100, longest |".to_owned(),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|".to_owned(),
    ];
    let mut wrong = Vec::new();
    for (fault, group, name) in chosen {
        let (mut seen, mut failed) = (Vec::new(), 0);
        for index in 0..runs {
            let seed = random.bits();
            let topic = format!("{fault:?}-{group:?}-{index}");
            let start = Instant::now();
            let run = one(&kafka, topic.clone(), (fault, group), seed).await;
            let run = match kafka.delete(&topic).await {
                Ok(()) => run,
                Err(error) => run.and(Err(error)),
            };
            match run {
                Ok(run) => {
                    println!("{name}, seed {seed}, {:.0?}: {run:?}", start.elapsed());
                    wrong.extend(run.wrong.iter().map(|text| format!("{name}, seed {seed}: {text}")));
                    seen.push(run);
                }
                Err(error) => {
                    failed += 1;
                    println!("{name}, seed {seed}: {error:#}");
                    wrong.push(format!("{name}, seed {seed}: {error:#}"));
                    kafka.run(&["up", "3"]).unwrap();
                }
            }
        }
        table.push(row(name, &seen, failed));
    }
    println!("{}", table.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn one(kafka: &Kafka, topic: String, (fault, group): (Fault, Group), seed: u64) -> Result<Seen> {
    let mut run = Run::start(kafka, topic, (fault, group), Random::new(seed)).await.context("the start")?;
    run.go_on(300).await?;
    run.look()?;
    run.act(fault).await.context("the fault")?;
    run.judge(fault).await.context("the end")
}
