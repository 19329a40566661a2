//! Batch rows: tasks of 1 KB, one in a request and many in a request, to the same front door, each named or not in both.

use super::{
    BatchRow, Format, Line, Setup,
    doors::{Door, Load, LoadReport, Size, measured},
    pairs,
};
use anyhow::{Context, Result, bail, ensure};
use partita_proto::v1;
use prost::Message;
use rand::{RngExt, distr::Alphanumeric};
use std::{
    io::{Read, Write},
    net::TcpStream,
    ops::Range,
    time::{Duration, Instant},
};

const PARTITIONS: u32 = 16;
/// Requests at once.
const CONNECTIONS: usize = 4;
/// Tasks in a request.
const TASKS: usize = 2500;
/// Bytes of a payload.
const PAYLOAD: usize = 1024;
/// Keys, so that many tasks of a request go side by side.
const KEYS: usize = 500;
/// Digits of an event's id.
const ID: usize = 16;

pub(super) fn measure(setup: &Setup, row: &BatchRow) -> Result<Line> {
    let size = Size { bare: false, workers: 1, producers: 1 };
    let named = row.format != Format::ProtobufUnnamed;
    let pairs = pairs(setup.cli.pairs, |is_single| {
        let door = Door::start(setup, row.backend, PARTITIONS, size)?;
        let run = measured(setup, &door.server, |address, seconds| {
            if is_single {
                let load = Load { size: "1KiB", clients: 64, rate: None, named };
                load.generate(setup, address, seconds)
            } else {
                generate(row.format, address, setup.tokens.token(), Duration::from_secs(seconds))
            }
        })?;
        setup.say(&format!(
            "{}: {} {:.0}/s",
            row.name,
            if is_single { "one by one" } else { "many" },
            run.rate
        ));
        Ok(run)
    })?;
    Ok(Line::new(&row.name, ("one by one".into(), "many in a request".into()), &pairs))
}

/// Sends request after request over a few connections for so long.
fn generate(format: Format, address: &str, token: &str, duration: Duration) -> Result<LoadReport> {
    // Making them takes longer than sending them.
    let bodies: Vec<_> = (0..CONNECTIONS).map(|number| Body::new(format, number)).collect();
    let start = Instant::now();
    let accepted = std::thread::scope(|scope| {
        let client = |body: Body| move || body.send_until(start + duration, address, token);
        let clients: Vec<_> = bodies.into_iter().map(|body| scope.spawn(client(body))).collect();
        clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .sum::<Result<u64>>()
    })?;
    let bytes = accepted * PAYLOAD as u64;
    Ok(LoadReport {
        acknowledged: accepted,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
        ..LoadReport::default()
    })
}

/// A request's body, made once: only its ids are written anew for each request.
struct Body {
    media_type: &'static str,
    bytes: Vec<u8>,
    ids: Vec<Range<usize>>,
    next: u64,
}

impl Body {
    fn new(format: Format, client: usize) -> Self {
        let mut body = Self {
            media_type: match format {
                Format::Lines => "application/x-ndjson",
                Format::Json => "application/cloudevents-batch+json",
                Format::Protobuf | Format::ProtobufUnnamed => "application/x-protobuf",
            },
            bytes: Vec::new(),
            ids: Vec::new(),
            // What other clients and runs send is never the same.
            next: rand::random::<u64>() >> 16,
        };
        for number in 0..TASKS {
            let text: String = rand::rng().sample_iter(Alphanumeric).take(PAYLOAD).map(char::from).collect();
            let key = format!("key-{client}-{}", number % KEYS);
            let id = format!("id{number:0width$}", width = ID - 2);
            let task = match format {
                Format::Lines | Format::Json => format!(
                    r#"{{"specversion":"1.0","id":"{id}","source":"/bench","type":"bench","partitionkey":"{key}","datacontenttype":"text/plain","data":"{text}"}}"#
                )
                .into_bytes(),
                Format::Protobuf | Format::ProtobufUnnamed => {
                    let source = if format == Format::Protobuf { "/bench" } else { "" }.to_owned();
                    let task = v1::Task { key, id: id.clone(), source, payload: text.into(), ..v1::Task::default() };
                    v1::TaskBatch { tasks: vec![task] }.encode_to_vec()
                }
            };
            if format == Format::Json {
                body.bytes.push(if number == 0 { b'[' } else { b',' });
            }
            let at =
                task.windows(ID).position(|window| window == id.as_bytes()).map(|at| at + body.bytes.len());
            body.ids.extend(at.map(|at| at..at + ID));
            body.bytes.extend(task);
            if format == Format::Lines {
                body.bytes.push(b'\n');
            }
        }
        if format == Format::Json {
            body.bytes.push(b']');
        }
        body
    }

    fn send_until(mut self, end: Instant, address: &str, token: &str) -> Result<u64> {
        ensure!(self.ids.len() == TASKS, "an id was not found again");
        let head = format!(
            "POST /v1/tasks HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.media_type,
            self.bytes.len()
        );
        let mut accepted = 0;
        while Instant::now() < end {
            for id in &self.ids {
                self.next += 1;
                hex::encode_to_slice(self.next.to_be_bytes(), &mut self.bytes[id.clone()])?;
            }
            let mut stream = TcpStream::connect(address).context("connecting")?;
            stream.set_nodelay(true)?;
            stream.write_all(head.as_bytes())?;
            stream.write_all(&self.bytes)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            let found = memchr::memmem::find_iter(&answer, br#""status":"accepted""#).count();
            if found != TASKS {
                let answer = String::from_utf8_lossy(&answer[..answer.len().min(500)]).into_owned();
                bail!("{found} of {TASKS} tasks were accepted: {answer}");
            }
            accepted += found as u64;
        }
        Ok(accepted)
    }
}
