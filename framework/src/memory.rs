//! One memory number, divided once at start into pools that bytes are reserved from before they are allocated.
//!
//! The pools are separate so that accepting can never starve processing: what has been accepted can always be handled.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reservations are made in units of this many bytes.
const UNIT: u64 = 1024;

/// The least that is set aside for the index of parked tasks.
const PARKED_LEAST: u64 = 512 << 10;

/// The division of `memory.budget`.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    /// Bodies from the first byte until the log holds them no longer.
    pub intake: MemoryPool,
    /// Payloads that a worker decompressed, until their task ends.
    pub decode: MemoryPool,
    /// What a worker knows of the tasks that are parked: their keys, places and reasons, not the tasks themselves.
    pub parked: MemoryPool,
    /// What the front door remembers of the tasks that did not simply succeed. It can do without.
    pub states: MemoryPool,
    /// Fetched records that wait for their actor or are being handled; a limit that the consumer keeps by pausing.
    pub fetched: u64,
    /// What the log's client may hold of fetched records before they are delivered.
    pub prefetch: u64,
    total: u64,
}

impl MemoryBudget {
    /// Divides `budget` bytes so that a task of `max_task` bytes fits everywhere, or says how much it would need.
    pub fn divide(budget: u64, max_task: u64) -> Result<Self, String> {
        // A task is at most: one body (intake), one fetched record (prefetch, then outstanding), one decompressed payload. Beside its
        // payload it has a key and headers: they come in a request's head, far smaller than this.
        let room = 512 << 10;
        let largest = max_task + room;
        let needed = 4 * largest + PARKED_LEAST;
        if budget < needed {
            return Err(format!(
                "memory.budget of {budget} bytes is too small for limits.max_task of {max_task} bytes: at least {needed} bytes are needed; \
                 raise the budget or lower the limit"
            ));
        }
        let rest = budget - needed;
        Ok(Self {
            intake: MemoryPool::new("intake", largest + rest / 64 * 27),
            decode: MemoryPool::new("decode", largest + rest / 8),
            parked: MemoryPool::new("parked", PARKED_LEAST + rest / 16),
            states: MemoryPool::new("states", rest / 64),
            fetched: largest + rest / 8,
            prefetch: largest + rest / 4,
            total: budget,
        })
    }

    /// The pools, as metrics and operators see them.
    pub fn pools(&self) -> [&MemoryPool; 4] {
        [&self.intake, &self.decode, &self.parked, &self.states]
    }

    /// The whole budget in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// A number of bytes that may be reserved by several at once.
#[derive(Debug, Clone)]
pub struct MemoryPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    name: &'static str,
    capacity: u64,
    reserved: AtomicU64,
    units: Arc<Semaphore>,
}

impl MemoryPool {
    /// A pool of `capacity` bytes. The name is the `use` label of the metric.
    pub fn new(name: &'static str, capacity: u64) -> Self {
        let units = Arc::new(Semaphore::new((capacity / UNIT) as usize));
        Self(Arc::new(Pool { name, capacity, reserved: AtomicU64::new(0), units }))
    }

    /// The pool's name.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The pool's size in bytes.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }

    /// The bytes reserved now.
    pub fn reserved(&self) -> u64 {
        self.0.reserved.load(Ordering::Relaxed)
    }

    /// Reserves at once, or not at all.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let permit = self.0.units.clone().try_acquire_many_owned(units(bytes)).ok()?;
        Some(self.reservation(bytes, permit))
    }

    /// Reserves when there is room, first come first served. More than the whole pool waits for the whole pool.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let wanted = units(bytes.min(self.0.capacity)).min((self.0.capacity / UNIT) as u32);
        match self.0.units.clone().acquire_many_owned(wanted).await {
            Ok(permit) => self.reservation(bytes, permit),
            Err(_) => unreachable!("the pool's semaphore is never closed"),
        }
    }

    fn reservation(&self, bytes: u64, permit: OwnedSemaphorePermit) -> Reservation {
        self.0.reserved.fetch_add(bytes, Ordering::Relaxed);
        Reservation { pool: self.0.clone(), bytes, permit }
    }
}

fn units(bytes: u64) -> u32 {
    bytes.div_ceil(UNIT).min(u64::from(u32::MAX)) as u32
}

/// Bytes that are reserved until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    bytes: u64,
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves more, at once or not at all.
    pub fn try_grow(&mut self, more: u64) -> bool {
        let wanted = units(self.bytes + more).saturating_sub(units(self.bytes));
        if wanted > 0 {
            match self.pool.units.clone().try_acquire_many_owned(wanted) {
                Ok(permit) => self.permit.merge(permit),
                Err(_) => return false,
            }
        }
        self.bytes += more;
        self.pool.reserved.fetch_add(more, Ordering::Relaxed);
        true
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let surplus = units(self.bytes).saturating_sub(units(bytes));
            drop(self.permit.split(surplus as usize));
            self.pool.reserved.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
