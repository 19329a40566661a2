//! Ports for servers that are restarted on the address they had.
//!
//! They come from below the kernel's ephemeral range: a port from inside it can be taken by any client's outgoing
//! connection while its server is down, even by the one that tries to reach the server.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The first of `count` ports in a row, on loopback, that are free now and that no other test of this process was given.
pub fn free(count: u16) -> u16 {
    // Each process starts at another place, so that test processes beside each other rarely meet.
    let start = std::process::id().wrapping_mul(2_654_435_761) % COUNT;
    for _ in 0..COUNT {
        let taken = NEXT.fetch_add(u32::from(count), Ordering::Relaxed);
        let first = (FIRST + (start + taken) % (COUNT - u32::from(count))) as u16;
        if (first..first + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} free ports between {FIRST} and {}", FIRST + COUNT)
}

/// A free address on loopback.
pub fn address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free(1)))
}
