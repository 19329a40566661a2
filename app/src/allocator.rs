//! The allocator of every program that serves: the binary here, and the tests' and benchmarks' programs that stand for it.
//!
//! A task's buffer is filled by one thread and freed by another, minutes later and in any size. jemalloc gives each its own pages, and
//! those go back to the kernel: with size classes that share pages, several times `memory.budget` stays resident (see ADR 15).
#![expect(unsafe_code, reason = "jemalloc is configured by a symbol and by words of any type")]

use tikv_jemalloc_ctl::raw;

/// Serves C code too: librdkafka allocates each fetch, SQLite its pages.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc before `main` (<https://jemalloc.net/jemalloc.3.html#tuning>): what is freed goes back within a second, unless it is
/// taken again before, and buffers above 8 MiB are no exception; memory comes in huge pages where the kernel has some, or each fetch would
/// cost thousands of page faults; the number of arenas does not grow with the machine, as each keeps pages of its own. `MALLOC_CONF` in the
/// environment overrides it.
#[expect(non_upper_case_globals, reason = "jemalloc looks for a symbol of this name")]
#[unsafe(export_name = "malloc_conf")]
static malloc_conf: &[u8; 62] = b"dirty_decay_ms:1000,oversize_threshold:0,narenas:4,thp:always\0";

/// Below this budget, which is the default, a second's worth of freed buffers is too much beside it.
const SMALL_BUDGET: u64 = 512 << 20;

/// Adapts to a `memory.budget`, in bytes: beside a small one, what is freed goes back at once and memory comes in small pages, which costs
/// time.
#[allow(dead_code, reason = "benchmarks measure the default")]
pub(crate) fn adapt_to(budget: u64) -> anyhow::Result<()> {
    if budget >= SMALL_BUDGET {
        return Ok(());
    }
    // SAFETY: the names end in NUL, and the types are those that jemalloc documents: ssize_t for a decay, unsigned for a count.
    unsafe {
        raw::write(b"arenas.dirty_decay_ms\0", 0_isize).map_err(anyhow::Error::msg)?;
        for arena in 0..raw::read::<u32>(b"arenas.narenas\0").map_err(anyhow::Error::msg)? {
            // Fails for an arena that nobody has used yet: it begins with the value above.
            let _ = raw::write(format!("arena.{arena}.dirty_decay_ms\0").as_bytes(), 0_isize);
        }
    }
    // The allocator's own setting is read once, before any budget is known. This is the kernel's, of the whole process.
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true)?;
    Ok(())
}
