//! One token's owner: what he may do, and how much of it he has done lately.

use super::{
    super::problem::{Problem, ProblemCode},
    Verb,
};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use partita_core::{Rate, Used};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
    used: Arc<Mutex<[Used; 2]>>,
    /// The token is gone, or means something else now.
    revoked: AtomicBool,
}

impl Caller {
    pub(super) fn new(grant: Grant) -> Self {
        Self { grant, began: Instant::now(), used: Arc::default(), revoked: AtomicBool::new(false) }
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

    /// Requests that have begun hear of it, too.
    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    /// Whether this key is one of the token's.
    pub fn may_use(&self, key: &[u8]) -> Result<(), Problem> {
        if self.revoked.load(Ordering::Relaxed) {
            let detail =
                "the token was taken away, or changed, after the request began: send the rest in another one";
            return Err(Problem::new(ProblemCode::Unauthorized, detail));
        }
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

    fn has_rates(&self) -> bool {
        self.rates().iter().any(Option::is_some)
    }

    /// How long the next task is to wait; `None`: it may come.
    pub(in super::super) fn wait(&self) -> Option<Duration> {
        if !self.has_rates() {
            return None;
        }
        self.longest_wait(&self.used(), self.began.elapsed())
    }

    /// 429 where the next task is to wait.
    pub(in super::super) fn check(&self) -> Result<(), Problem> {
        self.wait().map_or(Ok(()), |wait| Err(self.too_often(wait)))
    }

    /// Takes a task in, whose bytes are charged when they have come; 429 where it is to wait.
    pub(in super::super) fn admit(&self) -> Result<(), Problem> {
        let (now, mut used) = (self.began.elapsed(), self.used());
        match self.longest_wait(&used, now) {
            None => {
                self.charge_to(&mut used, now, [1, 0]);
                Ok(())
            }
            Some(wait) => {
                drop(used);
                Err(self.too_often(wait))
            }
        }
    }

    fn longest_wait(&self, used: &[Used; 2], now: Duration) -> Option<Duration> {
        let waits =
            self.rates().into_iter().zip(used).filter_map(|(rate, used)| rate?.admits(*used, now).err());
        waits.max()
    }

    fn charge_to(&self, used: &mut [Used; 2], now: Duration, units: [u64; 2]) {
        for ((rate, used), units) in self.rates().into_iter().zip(used).zip(units) {
            if let Some(rate) = rate {
                *used = rate.charge(*used, units, now);
            }
        }
    }

    fn too_often(&self, wait: Duration) -> Problem {
        let seconds = wait.as_secs_f64().ceil() as u32;
        let problem = Problem::new(
            ProblemCode::RateLimited,
            format!("the token {:?} has used up its tasks or bytes a second", self.name()),
        );
        let mut told = HeaderMap::new();
        self.tell(&mut told);
        problem.after(seconds.max(1)).with(told)
    }

    /// Charges bytes that have come, whatever became of them.
    pub(in super::super) fn charge(&self, bytes: u64) {
        if self.has_rates() {
            let now = self.began.elapsed();
            self.charge_to(&mut self.used(), now, [0, bytes]);
        }
    }

    /// Charges a task of many. 429 where it is to wait and cannot. Says whether the next one is to wait.
    pub(in super::super) fn charge_task(&self, bytes: u64, can_wait: bool) -> Result<bool, Problem> {
        if !self.has_rates() {
            return Ok(false);
        }
        let (now, mut used) = (self.began.elapsed(), self.used());
        if !can_wait && let Some(wait) = self.longest_wait(&used, now) {
            drop(used);
            return Err(self.too_often(wait));
        }
        self.charge_to(&mut used, now, [1, bytes]);
        Ok(self.longest_wait(&used, now).is_some())
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

    /// As `grant` has it now. What was used is not forgotten, unless the rates are others.
    pub(super) fn renewed(&self, grant: Grant) -> Self {
        let same = (grant.tasks, grant.bytes) == (self.grant.tasks, self.grant.bytes);
        let used = if same { self.used.clone() } else { Arc::default() };
        Self { grant, began: self.began, used, revoked: AtomicBool::new(false) }
    }
}

fn forbidden(detail: String) -> Problem {
    Problem::new(ProblemCode::Forbidden, detail)
}
