//! One token's owner: what he may do, and how much of it he has done lately.

use super::{
    super::problem::{Problem, ProblemCode},
    Verb,
};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use partita_core::{Rate, Used};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// draft-ietf-httpapi-ratelimit-headers.
static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) name: String,
    /// The beginnings of its keys; any key where there are none.
    pub(super) keys: Vec<String>,
    pub(super) verbs: Vec<Verb>,
    pub(super) tasks: Option<Rate>,
    pub(super) bytes: Option<Rate>,
}

/// Who sends a request.
#[derive(Debug)]
pub struct Caller {
    pub(super) grant: Grant,
    /// What `used` counts from.
    began: Instant,
    used: Mutex<[Used; 2]>,
}

impl Caller {
    pub(super) fn new(grant: Grant) -> Self {
        Self { grant, began: Instant::now(), used: Mutex::default() }
    }

    pub(super) fn of_everything(name: &str) -> Self {
        let (keys, verbs) = (Vec::new(), vec![Verb::Write, Verb::Read]);
        Self::new(Grant { name: name.to_owned(), keys, verbs, tasks: None, bytes: None })
    }

    /// The token's name.
    pub fn name(&self) -> &str {
        &self.grant.name
    }

    pub(super) fn may(&self, verb: Verb) -> Result<(), Problem> {
        if self.grant.verbs.contains(&verb) {
            return Ok(());
        }
        let what = match verb {
            Verb::Write => "store tasks (the verb write)",
            Verb::Read => "read (the verb read)",
        };
        Err(forbidden(format!("the token {:?} may not {what}", self.name())))
    }

    /// Whether this key is one of the token's.
    pub fn may_use(&self, key: &[u8]) -> Result<(), Problem> {
        let keys = &self.grant.keys;
        if keys.is_empty() || keys.iter().any(|prefix| key.starts_with(prefix.as_bytes())) {
            return Ok(());
        }
        Err(forbidden(format!(
            "the key is none of the token {:?}: its keys begin with {}",
            self.name(),
            keys.join(", ")
        )))
    }

    /// Whether every key is.
    pub fn may_use_all(&self) -> Result<(), Problem> {
        if self.grant.keys.is_empty() {
            return Ok(());
        }
        Err(forbidden(format!(
            "this is not of one key, and the token {:?} is for some keys only",
            self.name()
        )))
    }

    fn used(&self) -> MutexGuard<'_, [Used; 2]> {
        // No code that can panic runs under the lock.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rates(&self) -> [Option<Rate>; 2] {
        [self.grant.tasks, self.grant.bytes]
    }

    /// How long the next task is to wait; `None`: it may come.
    pub(in super::super) fn wait(&self) -> Option<Duration> {
        let (now, used) = (self.began.elapsed(), self.used());
        let waits =
            self.rates().into_iter().zip(*used).filter_map(|(rate, used)| rate?.admits(used, now).err());
        waits.max()
    }

    /// 429 where the next task is to wait.
    pub(in super::super) fn admit(&self) -> Result<(), Problem> {
        let Some(wait) = self.wait() else { return Ok(()) };
        let seconds = wait.as_secs_f64().ceil() as u32;
        let problem = Problem::new(
            ProblemCode::RateLimited,
            format!("the token {:?} has used up its tasks or bytes a second", self.name()),
        );
        Err(problem.after(seconds.max(1)))
    }

    /// Charges a task of so many bytes.
    pub(in super::super) fn charge(&self, bytes: u64) {
        let now = self.began.elapsed();
        let mut used = self.used();
        for ((rate, used), units) in self.rates().into_iter().zip(&mut *used).zip([1, bytes]) {
            if let Some(rate) = rate {
                *used = rate.charge(*used, units, now);
            }
        }
    }

    /// Says in an answer what is left.
    pub(in super::super) fn tell(&self, headers: &mut HeaderMap) {
        let (now, used) = (self.began.elapsed(), *self.used());
        let (mut policies, mut limits) = (Vec::new(), Vec::new());
        for ((rate, used), name) in self.rates().into_iter().zip(used).zip(["tasks", "bytes"]) {
            if let Some(rate) = rate {
                policies.push(format!("\"{name}\";q={};w=1", rate.per_second));
                let wait = rate.admits(used, now).err().map_or(0, |wait| wait.as_secs_f64().ceil() as u64);
                limits.push(format!("\"{name}\";r={};t={}", rate.remaining(used, now), wait.max(1)));
            }
        }
        for (name, values) in [(&POLICY, policies), (&LIMIT, limits)] {
            if let (false, Ok(value)) = (values.is_empty(), HeaderValue::from_str(&values.join(", "))) {
                headers.insert(name.clone(), value);
            }
        }
    }

    /// As `grant` has it now, and nothing of what was used is forgotten.
    pub(super) fn renewed(&self, grant: Grant) -> Self {
        Self { grant, began: self.began, used: Mutex::new(*self.used()) }
    }
}

fn forbidden(detail: String) -> Problem {
    Problem::new(ProblemCode::Forbidden, detail)
}
