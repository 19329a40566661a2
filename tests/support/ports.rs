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
        let Some(first) = place(start, taken, u32::from(count)) else { continue };
        if (first..first + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} free ports between {FIRST} and {}", FIRST + COUNT)
}

/// The first of `count` ports, once `taken` were given out from `start` on; `None` where they do not fit before the end of all.
fn place(start: u32, taken: u32, count: u32) -> Option<u16> {
    let first = (start + taken) % COUNT;
    (first + count <= COUNT).then_some((FIRST + first) as u16)
}

/// A free address on loopback.
pub fn address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_port_is_given_twice_wherever_it_begins() {
        for start in (0..COUNT).step_by(101) {
            let (mut given, mut taken) = (HashSet::new(), 0);
            for count in [1, 24, 1, 1, 24, 2].into_iter().cycle() {
                if taken + count > COUNT {
                    break;
                }
                let ports = place(start, taken, count).map(|first| first..first + count as u16);
                assert!(ports.into_iter().flatten().all(|port| given.insert(port)), "{start}");
                taken += count;
            }
        }
    }
}
