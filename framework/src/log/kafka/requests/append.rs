//! One idempotent append, step by step: known already? else claimed, appended, and noted where.

use super::{
    super::{
        delivery::Target,
        lookup::{Lookup, Searched, Sought},
        producer::{Record, Shared},
    },
    Requests, SHOWN_WITHIN, note, refused,
};
use crate::log::{AppendError, Idempotency, IdempotencyKey, NewRecord, NotWritten, Receipt};
use partita_core::{ClaimId, Offset, Partition, RequestClaim, RequestNote, RequestVerdict};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The header of a task's record that names the claim it was appended under.
pub(in super::super) const CLAIM_HEADER: &str = "partita-claim";
/// How often a request is looked at again after another claimed it first.
const ROUNDS: usize = 8;
/// How far beyond the time of a claim its record is looked for, by the brokers' clocks.
const SLACK: Duration = Duration::from_secs(600);

/// How long after a claim in another's place that one's record is looked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(3);

/// How long a sender waits for such a search.
const SEARCH_WITHIN: Duration = Duration::from_secs(120);

/// What one append needs.
pub(in super::super) struct Append {
    pub(in super::super) shared: Arc<Shared>,
    pub(in super::super) lookup: Arc<Lookup>,
    /// For short searches, which must not wait behind long ones.
    pub(in super::super) again: Arc<Lookup>,
    pub(in super::super) partition: Partition,
    pub(in super::super) idempotency: Idempotency,
}

/// What looking has come to.
enum Looked {
    Found(RequestClaim, Offset),
    /// Nothing; and from where on to look again for what may not be shown yet.
    Nothing([Option<RequestClaim>; 2]),
}

impl Append {
    fn requests(&self) -> &Requests {
        &self.shared.requests
    }

    pub(in super::super) async fn run(mut self, record: NewRecord) -> Result<Receipt, AppendError> {
        self.requests().ready().await?;
        let Some(topic_id) = self.shared.topic_id() else {
            return Err(refused(NotWritten::NotReady, "the id of the task topic is not known yet".into()));
        };
        self.idempotency.key = self.requests().journal_key(topic_id, self.idempotency.key);
        for _ in 0..ROUNDS {
            let cut_short = match self.judge()? {
                RequestVerdict::Claim => None,
                RequestVerdict::InFlight => return Err(in_flight()),
                RequestVerdict::Repeated(offset) => return Ok(self.repeated(offset)),
                RequestVerdict::Reused => return Err(reused()),
                RequestVerdict::Look(claim, before) => match self.look(claim, before).await? {
                    Looked::Found(claim, offset) => return self.found(claim, offset),
                    Looked::Nothing(further) => Some((claim.id, further)),
                },
            };
            let sent = Instant::now();
            let claim = self.requests().new_claim();
            if !self.claim(claim, cut_short.map(|(id, _)| id), sent).await? {
                continue;
            }
            if let Some((_, further)) = cut_short
                && let Some((found, offset)) = self.look_again(further, claim).await?
            {
                return self.found(found, offset);
            }
            return self.append(claim, sent, record).await;
        }
        Err(in_flight())
    }

    /// The answer where the record of this claim is there.
    fn found(&self, claim: RequestClaim, offset: Offset) -> Result<Receipt, AppendError> {
        self.tell(RequestNote::Stored(claim.digest, offset));
        if claim.digest == self.idempotency.digest.0 { Ok(self.repeated(offset)) } else { Err(reused()) }
    }

    /// Looks in the log for the records of a claim that was cut short and of the one in whose place it was made.
    async fn look(&self, claim: RequestClaim, before: Option<RequestClaim>) -> Result<Looked, AppendError> {
        let search = async {
            let mut further = [None, None];
            for (claim, further) in [Some(claim), before].into_iter().zip(&mut further) {
                let Some(claim) = claim else { continue };
                match self.search(claim, &self.lookup).await? {
                    Searched::Found(offset) => return Ok(Looked::Found(claim, offset)),
                    Searched::Absent => {}
                    Searched::NotYet(end) => *further = Some(RequestClaim { from: end, ..claim }),
                }
            }
            if further.iter().any(Option::is_some) {
                self.is_not_hidden().await?;
            }
            Ok(Looked::Nothing(further))
        };
        tokio::time::timeout(SEARCH_WITHIN, search).await.unwrap_or_else(|_| Err(in_flight()))
    }

    async fn search(&self, claim: RequestClaim, lookup: &Lookup) -> Result<Searched, AppendError> {
        let until_ms = claim.at_ms + (self.requests().times.settled_after() + SLACK).as_millis() as i64;
        let since_ms = claim.at_ms - SLACK.as_millis() as i64;
        let sought =
            Sought { partition: self.partition, from: claim.from, since_ms, until_ms, claim: claim.id };
        let searched = lookup.find_claim(sought).await;
        searched.map_err(|error| refused(NotWritten::Away, error.to_string()))
    }

    /// Looks once more for what was not found, in what is shown since, now that `held` is held in its place: brokers that stood still and go on all at
    /// once show their last records a moment after they take new ones.
    async fn look_again(
        &self,
        further: [Option<RequestClaim>; 2],
        held: ClaimId,
    ) -> Result<Option<(RequestClaim, Offset)>, AppendError> {
        if further.iter().all(Option::is_none) {
            return Ok(None);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        for claim in further.into_iter().flatten() {
            match self.search(claim, &self.again).await {
                Ok(Searched::Found(offset)) => return Ok(Some((claim, offset))),
                Ok(Searched::Absent | Searched::NotYet(_)) => {}
                Err(error) => {
                    self.tell(RequestNote::Released(held));
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    fn judge(&self) -> Result<RequestVerdict, AppendError> {
        let Idempotency { key, digest } = &self.idempotency;
        let requests = self.requests();
        let verdict = requests.with_book(|book| {
            let known = book.find(key)?;
            let verdict = known.state.judge(digest.0, known.since.elapsed(), &requests.times);
            Ok((verdict, book.is_full()))
        });
        match verdict.map_err(unreadable)? {
            (RequestVerdict::Claim, true) => {
                let reason =
                    "the index of idempotency keys cannot be written: check log.kafka.idempotency_dir";
                Err(refused(NotWritten::Busy, reason.into()))
            }
            (verdict, _) => Ok(verdict),
        }
    }

    /// Whether this claim holds the request.
    async fn claim(
        &self,
        id: ClaimId,
        replaces: Option<ClaimId>,
        sent: Instant,
    ) -> Result<bool, AppendError> {
        let requests = self.requests();
        let (from, digest) = (requests.end_of(self.partition), self.idempotency.digest.0);
        let claim = RequestClaim { id, digest, from, at_ms: 0 };
        let held = requests.with_book(|book| Ok(book.wait_for(id))).map_err(unreadable)?;
        let written = self.note(RequestNote::Claimed(claim, replaces));
        let mut may_be_written = true;
        let answer = async {
            match written.await {
                Ok(_) => held.await.map_err(|_| unreadable("it was closed".into())),
                Err(AppendError::NotWritten { code, reason }) => {
                    may_be_written = false;
                    Err(refused(code, format!("the request could not be noted: {reason}")))
                }
                Err(AppendError::Unknown { reason }) => {
                    Err(refused(NotWritten::Away, format!("the request could not be noted: {reason}")))
                }
            }
        };
        let patience = requests.times.claim.saturating_sub(sent.elapsed());
        let answer = tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| {
            let reason = format!("the journal of requests, {}, did not answer in time", requests.topic);
            Err(refused(NotWritten::Away, reason))
        });
        if answer.is_err() {
            // It may hold the request yet: whoever reads it then lets go of it.
            let _ = requests.with_book(|book| {
                book.give_up(id, may_be_written, Instant::now());
                Ok(())
            });
        }
        answer
    }

    async fn append(&self, claim: ClaimId, sent: Instant, record: NewRecord) -> Result<Receipt, AppendError> {
        let requests = self.requests();
        if sent.elapsed() >= requests.times.claim {
            self.tell(RequestNote::Released(claim));
            let reason = "this process stood still while the request was being noted";
            return Err(refused(NotWritten::Busy, reason.into()));
        }
        let NewRecord { key, value, reservation, .. } = record;
        let header = Some((CLAIM_HEADER, claim.0.to_be_bytes().to_vec().into()));
        let record = Record { key: &key, value, reservation, header };
        let answer = self.shared.write(Target::Tasks, self.partition, record).await;
        match &answer {
            Ok(receipt) => {
                requests.note_end(self.partition, receipt.offset.next());
                self.tell(RequestNote::Stored(self.idempotency.digest.0, receipt.offset));
            }
            Err(AppendError::NotWritten { .. }) => self.tell(RequestNote::Released(claim)),
            // Whoever comes again looks whether it was.
            Err(AppendError::Unknown { .. }) => {}
        }
        answer
    }

    /// Whether a record that was not found is not there. While too few replicas are in sync, the last ones are not shown.
    async fn is_not_hidden(&self) -> Result<(), AppendError> {
        let said = self.lookup.needed_and_answering(self.partition).await;
        let (needed, answering) = said.map_err(|error| refused(NotWritten::Away, error.to_string()))?;
        // What the leader counts as in sync may be of long ago where the brokers have no controller.
        let replicas = &self.shared.replicas;
        if answering >= needed && replicas.have_been_in_sync(self.partition, needed, SHOWN_WITHIN) {
            return Ok(());
        }
        let reason = format!(
            "whether this request was stored before cannot be said before min.insync.replicas of partition {} have been in sync for {SHOWN_WITHIN:?}, and answer; try again",
            self.partition
        );
        Err(refused(NotWritten::InFlight, reason))
    }

    fn repeated(&self, offset: Offset) -> Receipt {
        Receipt { partition: self.partition, offset, repeated: true }
    }

    /// Writes to the journal and waits for nothing: what gets lost is found out later.
    fn tell(&self, note: RequestNote) {
        drop(self.note(note));
    }

    fn note(&self, note: RequestNote) -> crate::log::AppendFuture {
        write_note(&self.shared, self.idempotency.key, note)
    }
}

/// Gives up a claim of this process that nobody waits for.
pub(in super::super) fn release(shared: &Shared, key: IdempotencyKey, claim: ClaimId) {
    drop(write_note(shared, key, RequestNote::Released(claim)));
}

fn write_note(shared: &Shared, key: IdempotencyKey, note: RequestNote) -> crate::log::AppendFuture {
    let partition = shared.requests.partition_of(&key);
    let value = note::encode(note).into();
    let record = Record { key: &key.0, value, reservation: None, header: None };
    shared.write(Target::Requests, partition, record)
}

fn in_flight() -> AppendError {
    let reason = "a request with this idempotency key is under way, or its outcome is not known yet; try again for its receipt";
    refused(NotWritten::InFlight, reason.into())
}

fn reused() -> AppendError {
    refused(NotWritten::Reused, crate::log::idempotency::REUSED.into())
}

fn unreadable(reason: String) -> AppendError {
    refused(NotWritten::NotReady, format!("the journal of requests cannot be read: {reason}"))
}
