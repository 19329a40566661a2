//! Compressed bodies, and compression at the edge.

use super::{
    bodies::noise,
    support::{Running, Setup},
};
use crate::config::{CompressionMode, FrontDoorConfig};
use bytesize::ByteSize;
use flate2::{Compression as Level, write::GzEncoder};
use partita_proto::v1::Compression;
use std::{
    io::Write,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

const GZIP: &str = "Content-Encoding: gzip\r\n";
const ZSTD: &str = "Content-Encoding: zstd\r\n";

fn gzip(payload: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(payload).unwrap();
    encoder.finish().unwrap()
}

fn zstd(payload: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(payload, 3).unwrap()
}

/// Like a recording's JSON: it shrinks to a fraction.
fn json(size: usize) -> Vec<u8> {
    let mut text = String::new();
    for number in 0_u64.. {
        text.push_str(&format!(r#"{{"type":3,"data":{{"source":{},"id":{number}}}}},"#, number * 7919 % 13));
        if text.len() > size {
            break;
        }
    }
    text.into_bytes()[..size].to_vec()
}

fn uncompressed_edge() -> Setup {
    let mut setup = Setup::default();
    setup.config.compression = CompressionMode::None;
    setup
}

#[test]
fn a_compressed_body_is_its_payload() {
    let door = uncompressed_edge().start();
    let payload = json(700_000);
    let halves = payload.split_at(300_000);
    for (headers, body) in [
        (GZIP, gzip(&payload)),
        ("Content-Encoding: X-Gzip\r\n", gzip(&payload)),
        (GZIP, [gzip(halves.0), gzip(b""), gzip(halves.1)].concat()),
        (ZSTD, zstd(&payload)),
        ("Content-Encoding: ZSTD\r\n", [zstd(halves.0), zstd(b""), zstd(halves.1)].concat()),
    ] {
        assert_eq!(door.post("k", headers, &body).status, 202);
        assert!(door.log.payloads().last().unwrap().1 == payload);
        let mut connection = door.connect();
        connection.send_chunked_head("k", headers);
        for chunk in body.chunks(1000) {
            connection.send_chunk(chunk);
        }
        connection.send("0\r\n\r\n");
        assert_eq!(connection.response().status, 202);
        assert!(door.log.payloads().last().unwrap().1 == payload);
    }
}

#[test]
fn a_zstd_body_is_stored_as_it_came_and_a_gzip_body_is_not() {
    let payload = json(100_000);
    for (headers, body, compression) in
        [(ZSTD, zstd(&payload), Compression::Zstd), (GZIP, gzip(&payload), Compression::None)]
    {
        let door = uncompressed_edge().start();
        assert_eq!(door.post("k", headers, &body).status, 202);
        let (envelope, stored) = door.log.only();
        assert_eq!(envelope.compression(), compression);
        assert_eq!(envelope.payload_size, 100_000);
        assert!(stored == payload);
        assert!(compression == Compression::None || envelope.payload == body);
    }
}

#[test]
fn a_broken_compressed_body_is_400_with_what_is_broken() {
    let door = Setup::default().start();
    for (headers, whole) in [(GZIP, gzip(&json(5000))), (ZSTD, zstd(&json(5000)))] {
        let cut = &whole[..whole.len() - 1];
        let trailing = [&whole[..], b"trailing"].concat();
        for (body, code) in [
            (cut, "truncated_encoding"),
            (&trailing, "trailing_bytes"),
            (b"not compressed at all", "invalid_encoding"),
        ] {
            let response = door.post("k", headers, body);
            assert_eq!((response.status, response.problem().as_str()), (400, code), "{headers}");
        }
    }
    assert!(door.log.payloads().is_empty());
    door.await_idle_pool();
}

#[test]
fn a_zstd_window_beyond_8_mib_is_400_and_says_so() {
    let door = Setup { max_task: 32 << 20, pool: 128 << 20, ..Setup::default() }.start();
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(&json(20 << 20)).unwrap();
    let response = door.post("k", ZSTD, &encoder.finish().unwrap());
    assert_eq!((response.status, response.problem().as_str()), (400, "window_too_large"));
}

/// Watches the pool while `work` runs.
fn peak_of(door: &Running, work: impl FnOnce()) -> u64 {
    let (pool, done, peak) =
        (door.pool.clone(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = std::thread::spawn({
        let (done, peak) = (done.clone(), peak.clone());
        move || {
            while !done.load(Ordering::SeqCst) {
                peak.fetch_max(pool.reserved(), Ordering::SeqCst);
                std::thread::yield_now();
            }
        }
    });
    work();
    done.store(true, Ordering::SeqCst);
    watcher.join().unwrap();
    peak.load(Ordering::SeqCst)
}

#[test]
fn a_bomb_is_413_and_takes_no_more_than_a_task_may() {
    let door = Setup { pool: 64 << 20, ..Setup::default() }.start();
    let zeros = vec![0; 300 << 20];
    let mut streamed = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    streamed.write_all(&zeros).unwrap();
    for (headers, bomb) in [(GZIP, gzip(&zeros)), (ZSTD, zstd(&zeros)), (ZSTD, streamed.finish().unwrap())] {
        assert!(bomb.len() < 2 << 20);
        let peak = peak_of(&door, || {
            let response = door.post("k", headers, &bomb);
            assert_eq!((response.status, response.problem().as_str()), (413, "too_large"));
        });
        assert!(peak <= 4 << 20, "{headers} {peak}");
        door.await_idle_pool();
    }
}

#[test]
fn frames_that_hold_nothing_are_bounded_too() {
    let door = Setup::default().start();
    let empty = [&0x184d_2a50_u32.to_le_bytes()[..], &(1_u32 << 20).to_le_bytes()].concat();
    let mut connection = door.connect();
    connection.send_chunked_head("k", ZSTD);
    for _ in 0..3 {
        connection.send_chunk(&empty);
        connection.send_chunk(&vec![0; 1 << 20]);
    }
    let response = connection.response();
    assert_eq!((response.status, response.problem().as_str()), (413, "too_large"));
    assert_eq!(door.post("k", ZSTD, &[&0x184d_2a50_u32.to_le_bytes()[..], &[0; 4]].concat()).status, 202);
    let (envelope, payload) = door.log.only();
    assert_eq!((envelope.compression(), payload.len()), (Compression::None, 0));
}

#[test]
fn a_payload_that_shrinks_is_stored_compressed_and_any_other_as_it_came() {
    for (payload, headers, compression) in [
        (json(20_000), "", Compression::Zstd),
        (json(1_000_000), "", Compression::Zstd),
        (json(20_000), "Content-Type: IMAGE/png\r\n", Compression::None),
        (json(20_000), "Content-Type: image/svg+xml\r\n", Compression::Zstd),
        (json(10_000), "", Compression::None),
        (noise(20_000), "", Compression::None),
        (noise(1_000_000), "", Compression::None),
        ([noise(800_000), json(200_000)].concat(), "", Compression::None),
    ] {
        let door = Setup::default().start();
        assert_eq!(door.post("k", headers, &payload).status, 202);
        let (envelope, stored) = door.log.only();
        assert_eq!(envelope.compression(), compression, "{} {headers}", payload.len());
        assert_eq!(envelope.payload_size, payload.len() as u64);
        assert!(stored == payload);
        if compression == Compression::Zstd {
            assert!(envelope.payload.len() <= payload.len() * 3 / 4);
            assert!(door.pool.reserved() < payload.len() as u64, "{}", door.pool.reserved());
        }
    }
}

#[test]
fn a_gzip_payload_is_compressed_anew() {
    let door = Setup::default().start();
    let payload = json(500_000);
    assert_eq!(door.post("k", GZIP, &gzip(&payload)).status, 202);
    let (envelope, stored) = door.log.only();
    assert_eq!(envelope.compression(), Compression::Zstd);
    assert!(stored == payload);
}

#[test]
fn what_does_not_fit_the_budget_compressed_beside_itself_is_stored_as_it_came() {
    let config = FrontDoorConfig { compression_min: ByteSize::kib(16), ..Setup::default().config };
    let door = Setup { pool: (1 << 20) + (32 << 10), config, ..Setup::default() }.start();
    let payload = json(1 << 20);
    assert_eq!(door.post("k", "", &payload).status, 202);
    let (envelope, stored) = door.log.only();
    assert_eq!(envelope.compression(), Compression::None);
    assert!(stored == payload);
}
