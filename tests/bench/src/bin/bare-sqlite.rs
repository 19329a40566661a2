//! A bare front door over SQLite: actix-web and one thread that commits what has come together, WAL, `synchronous=FULL`.

use anyhow::{Context, Result};
use bytes::BytesMut;
use clap::Parser;
use partita_bench::door::{self, DoorArgs, Store};
use rusqlite::{Connection, params};
use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
};
use tokio::sync::oneshot;

/// The most bodies in a transaction.
const GROUP: usize = 256;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(flatten)]
    door: DoorArgs,
    /// The directory of the database; made if it is not there.
    #[arg(long)]
    dir: PathBuf,
    /// The number of partitions.
    #[arg(long, default_value_t = 16)]
    partitions: u32,
}

struct Write {
    partition: u32,
    key: String,
    body: BytesMut,
    done: oneshot::Sender<Result<u64, String>>,
}

#[derive(Clone)]
struct Sqlite {
    partitions: u32,
    writer: Sender<Write>,
}

impl Store for Sqlite {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn append(&self, partition: u32, key: String, body: BytesMut) -> Result<u64> {
        let (done, answer) = oneshot::channel();
        self.writer.send(Write { partition, key, body, done }).ok().context("the writer has ended")?;
        answer.await?.map_err(anyhow::Error::msg)
    }
}

#[actix_web::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut database = open(&cli.dir)?;
    let (writer, writes) = channel();
    let partitions = cli.partitions;
    std::thread::Builder::new()
        .name("writer".into())
        .spawn(move || write_all(&mut database, &writes, partitions))?;
    door::serve(cli.door, Sqlite { partitions, writer }).await
}

fn open(dir: &Path) -> Result<Connection> {
    std::fs::create_dir_all(dir)?;
    let database = Connection::open(dir.join("tasks.db"))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, key TEXT NOT NULL, body BLOB NOT NULL)",
    )?;
    Ok(database)
}

fn write_all(database: &mut Connection, writes: &Receiver<Write>, partitions: u32) {
    let mut next = vec![0_u64; partitions as usize];
    while let Ok(first) = writes.recv() {
        let mut group = vec![first];
        group.extend(writes.try_iter().take(GROUP - 1));
        let outcome = write_group(database, &group, &mut next).map_err(|error| error.to_string());
        let mut offsets = outcome.as_ref().map(|offsets| offsets.iter()).into_iter().flatten();
        for write in group {
            let answer = match (&outcome, offsets.next()) {
                (Ok(_), Some(offset)) => Ok(*offset),
                (Err(error), _) => Err(error.clone()),
                (Ok(_), None) => Err("no offset".into()),
            };
            let _ = write.done.send(answer);
        }
    }
}

fn write_group(database: &mut Connection, group: &[Write], next: &mut [u64]) -> Result<Vec<u64>> {
    let transaction = database.transaction()?;
    let mut offsets = Vec::with_capacity(group.len());
    {
        let mut insert =
            transaction.prepare_cached("INSERT INTO tasks (id, key, body) VALUES (?1, ?2, ?3)")?;
        for write in group {
            let offset = next[write.partition as usize];
            insert.execute(params![
                (i64::from(write.partition) << 44) | offset as i64,
                write.key,
                &write.body[..]
            ])?;
            next[write.partition as usize] += 1;
            offsets.push(offset);
        }
    }
    transaction.commit()?;
    Ok(offsets)
}
