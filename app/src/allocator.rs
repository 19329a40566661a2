//! The allocator of every program that serves: the binary here, and the tests' and benchmarks' programs that stand for it.
//!
//! A task's buffer is filled by one thread and freed by another, minutes later and in any size. jemalloc gives each its own pages, and
//! those go back to the kernel: with size classes that share pages, several times `memory.budget` stays resident (see ADR 15).

/// Serves C code too: librdkafka allocates each fetch, SQLite its pages.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc before `main` (<https://jemalloc.net/jemalloc.3.html#tuning>): what is freed goes back within 25 ms, as quickly as
/// does not slow the worker down; buffers above 8 MiB are no exception, or each fetch would be mapped anew; the number of arenas does not
/// grow with the machine, as each keeps pages of its own. `MALLOC_CONF` in the environment overrides it.
#[expect(unsafe_code, non_upper_case_globals, reason = "jemalloc looks for a symbol of this name")]
#[unsafe(export_name = "malloc_conf")]
static malloc_conf: &[u8; 49] = b"dirty_decay_ms:25,oversize_threshold:0,narenas:4\0";
