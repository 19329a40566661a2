//! A group consumer on librdkafka's event queue, as safe Rust.
//!
//! rdkafka's own `BaseConsumer` hides what this engine lives by: which partition an error belongs to, which commit an answer is
//! for, and a poll that another thread can end. So this module speaks to the C API directly, for those calls only.
#![allow(unsafe_code)]

mod event;
mod queue;

pub(super) use event::Fetched;
pub(super) use queue::{Polled, Queue};

use super::client::Context;
use partita_core::{CommitId, Offset, Partition};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    bindings::{self as rd, rd_kafka_resp_err_t as RespErr},
    client::Client,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaType,
};
use std::{ffi::CStr, ptr, slice, time::Duration};

/// A partition's committed offset with the text beside it; none where nothing is committed.
pub(super) type Stored = (Partition, Option<(Offset, String)>);

/// What came of a seek.
pub(super) enum Seek {
    /// It is there.
    Done,
    /// It is not being fetched: it is not assigned yet, or the client gave up at an offset that the log does not have.
    NotFetching,
    /// It may work another time.
    Failed(String),
}

/// How the group moves partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// All are taken, then all are given.
    Eager,
    /// Only what changes is taken and given.
    Cooperative,
}

/// A member of a consumer group, for one topic.
pub(super) struct NativeConsumer {
    // Declared first: the queue goes before the client it belongs to.
    queue: Queue,
    client: Client<Context>,
    topic: String,
}

impl NativeConsumer {
    /// A consumer that has not joined its group yet.
    pub(super) fn new(config: &ClientConfig, topic: &str) -> KafkaResult<Self> {
        let native = config.create_native_config()?;
        let events =
            rd::RD_KAFKA_EVENT_REBALANCE | rd::RD_KAFKA_EVENT_OFFSET_COMMIT | rd::RD_KAFKA_EVENT_ERROR;
        // SAFETY: the configuration is alive, and nobody else has it.
        unsafe { rd::rd_kafka_conf_set_events(native.ptr(), events) };
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_CONSUMER, Context::quiet())?;
        let queue = Queue::consumer(&client)
            .ok_or_else(|| KafkaError::ClientCreation("a consumer needs a group".into()))?;
        Ok(Self { queue, client, topic: topic.into() })
    }

    /// The client, for what rdkafka does safely.
    pub(super) fn client(&self) -> &Client<Context> {
        &self.client
    }

    /// Joins the group.
    pub(super) fn subscribe(&self) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_topic_unassigned(&self.topic);
        // SAFETY: client and list are alive for the call, which copies the list.
        let code = unsafe { rd::rd_kafka_subscribe(self.rk(), list.ptr()) };
        check(code).map_err(|code| KafkaError::Subscription(code.to_string()))
    }

    /// Takes the next thing from the queue, waiting for it at most this long.
    pub(super) fn poll(&self, timeout: Duration) -> Polled {
        self.queue.poll(timeout)
    }

    /// Ends the present poll, or else the next one, at once. From any thread.
    pub(super) fn wake(&self) {
        self.queue.wake();
    }

    /// Answers "given" with where to start; an eager group's list is the whole assignment.
    pub(super) fn assign(&self, partitions: &[(Partition, Offset)]) -> Result<(), String> {
        let list = self.list(partitions.iter().map(|&(partition, offset)| (partition, offset.0 as i64)));
        match self.protocol() {
            // SAFETY: client and list are alive for the call, which copies the list.
            Protocol::Cooperative => self
                .error(unsafe { rd::rd_kafka_incremental_assign(self.rk(), list.ptr()) })
                .map_err(|(_, reason)| reason),
            Protocol::Eager => {
                // SAFETY: as above.
                check(unsafe { rd::rd_kafka_assign(self.rk(), list.ptr()) }).map_err(|code| code.to_string())
            }
        }
    }

    /// Answers "taken".
    pub(super) fn unassign(&self, partitions: &[Partition]) -> Result<(), String> {
        match self.protocol() {
            Protocol::Cooperative => {
                let list = self.list(partitions.iter().map(|&partition| (partition, 0)));
                // SAFETY: client and list are alive for the call, which copies the list.
                self.error(unsafe { rd::rd_kafka_incremental_unassign(self.rk(), list.ptr()) })
                    .map_err(|(_, reason)| reason)
            }
            // SAFETY: the client is alive; a null list takes all back.
            Protocol::Eager => {
                check(unsafe { rd::rd_kafka_assign(self.rk(), ptr::null()) }).map_err(|code| code.to_string())
            }
        }
    }

    /// The protocol of the present membership.
    pub(super) fn protocol(&self) -> Protocol {
        // SAFETY: the client is alive; the string is a constant of librdkafka, or null before the first join.
        let name = unsafe {
            let name = rd::rd_kafka_rebalance_protocol(self.rk());
            if name.is_null() { return Protocol::Eager } else { CStr::from_ptr(name) }
        };
        if name.to_bytes() == b"COOPERATIVE" { Protocol::Cooperative } else { Protocol::Eager }
    }

    /// Whether the partitions are being taken because they are somebody else's already.
    pub(super) fn assignment_lost(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { rd::rd_kafka_assignment_lost(self.rk()) != 0 }
    }

    /// The group's generation, or the member's epoch under `group.protocol=consumer`. `None` before the first join.
    pub(super) fn generation(&self) -> Option<u32> {
        // SAFETY: the client is alive; what it returns is owned here and destroyed once.
        let generation = unsafe {
            let metadata = rd::rd_kafka_consumer_group_metadata(self.rk());
            if metadata.is_null() {
                return None;
            }
            let generation = rd::rd_kafka_consumer_group_metadata_generation_id(metadata);
            rd::rd_kafka_consumer_group_metadata_destroy(metadata);
            generation
        };
        u32::try_from(generation).ok().filter(|&generation| generation > 0)
    }

    /// Lets the member join again without waiting. librdkafka sends one JoinGroup a second at most, and forgets the last one when it hears
    /// of the topic's metadata (`rkcg_join_intvl`). A cooperative rebalance has two rounds, and all members wait for the slowest: a new
    /// member would keep partitions without an owner for the rest of its second.
    pub(super) fn skip_join_backoff(&self) -> KafkaResult<()> {
        self.client.fetch_metadata(Some(&self.topic), Duration::from_secs(1)).map(drop)
    }

    /// Pauses or resumes partitions.
    pub(super) fn set_paused(&self, partitions: &[Partition], paused: bool) {
        let list = self.list(partitions.iter().map(|&partition| (partition, 0)));
        // SAFETY: client and list are alive for the call. Its result says only that a partition is not there any more, in
        // which case there is nothing to pause.
        unsafe {
            if paused {
                rd::rd_kafka_pause_partitions(self.rk(), list.ptr());
            } else {
                rd::rd_kafka_resume_partitions(self.rk(), list.ptr());
            }
        }
    }

    /// Moves an assigned partition; records that were fetched before are not delivered after this returns `Done`.
    pub(super) fn seek(&self, partition: Partition, offset: Offset, timeout: Duration) -> Seek {
        let list = self.list([(partition, offset.0 as i64)].into_iter());
        // SAFETY: client and list are alive for the call.
        let sought = unsafe { rd::rd_kafka_seek_partitions(self.rk(), list.ptr(), millis(timeout)) };
        if let Err((_, reason)) = self.error(sought) {
            return Seek::Failed(reason);
        }
        match list.elements().first().map(|element| element.error()) {
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State) => {
                Seek::NotFetching
            }
            Some(Err(error)) => Seek::Failed(error.to_string()),
            _ => Seek::Done,
        }
    }

    /// Sends a commit of offsets, each with a text to be stored beside it, answered by `Polled::Committed`.
    pub(super) fn commit(
        &self,
        commit: CommitId,
        offsets: &[(Partition, Offset, String)],
    ) -> Result<(), String> {
        let list = self.list(offsets.iter().map(|(partition, offset, _)| (*partition, offset.0 as i64)));
        for (index, (.., text)) in offsets.iter().enumerate() {
            // SAFETY: the list is alive and has an element for each offset, in this order. The text is copied into memory that
            // librdkafka frees with the list.
            unsafe {
                let element = (*list.ptr()).elems.add(index);
                let copy = rd::rd_kafka_mem_malloc(ptr::null_mut(), text.len());
                ptr::copy_nonoverlapping(text.as_ptr(), copy.cast(), text.len());
                ((*element).metadata, (*element).metadata_size) = (copy, text.len());
            }
        }
        // SAFETY: client, list and queue are alive for the call, which copies the list and counts a reference of the queue.
        // The opaque is a number, never followed.
        let code = unsafe {
            rd::rd_kafka_commit_queue(self.rk(), list.ptr(), self.queue.0, None, commit.0 as usize as *mut _)
        };
        check(code).map_err(|code| code.to_string())
    }

    /// What is committed for each of these partitions, with the text beside it; `None` where nothing is. Waits for the coordinator at
    /// most this long.
    pub(super) fn committed(
        &self,
        partitions: &[Partition],
        timeout: Duration,
    ) -> Result<Vec<Stored>, String> {
        let list = self.list(partitions.iter().map(|&partition| (partition, -1001)));
        // SAFETY: client and list are alive for the call.
        check(unsafe { rd::rd_kafka_committed(self.rk(), list.ptr(), millis(timeout)) })
            .map_err(|code| code.to_string())?;
        elements(list.ptr())
            .iter()
            .map(|element| match check(element.err) {
                Ok(()) => {
                    let offset = u64::try_from(element.offset).ok().map(Offset);
                    Ok((
                        Partition(element.partition as u32),
                        offset.map(|offset| (offset, metadata(element))),
                    ))
                }
                Err(code) => Err(format!("partition {}: {code}", element.partition)),
            })
            .collect()
    }

    /// Begins to leave the group: what is still taken comes as events of `poll`, until `is_closed`.
    pub(super) fn begin_close(&self) -> Result<(), String> {
        // SAFETY: client and queue are alive.
        self.error(unsafe { rd::rd_kafka_consumer_close_queue(self.rk(), self.queue.0) })
            .map_err(|(_, reason)| reason)
    }

    /// Whether the group was left.
    pub(super) fn is_closed(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { rd::rd_kafka_consumer_closed(self.rk()) == 1 }
    }

    fn rk(&self) -> *mut rd::rd_kafka_t {
        self.client.native_ptr()
    }

    fn list(&self, partitions: impl Iterator<Item = (Partition, i64)>) -> TopicPartitionList {
        let list = TopicPartitionList::with_capacity(partitions.size_hint().0);
        let topic = std::ffi::CString::new(self.topic.as_str()).unwrap_or_default();
        for (partition, offset) in partitions {
            // SAFETY: the list is alive, and the new element is too while nothing else is added. librdkafka copies the name.
            unsafe {
                let element =
                    rd::rd_kafka_topic_partition_list_add(list.ptr(), topic.as_ptr(), partition.0 as i32);
                (*element).offset = offset;
            }
        }
        list
    }

    fn error(&self, error: *mut rd::rd_kafka_error_t) -> Result<(), (RDKafkaErrorCode, String)> {
        take_error(error)
    }
}

/// Takes an error object apart and frees it.
pub(super) fn take_error(error: *mut rd::rd_kafka_error_t) -> Result<(), (RDKafkaErrorCode, String)> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller just received the error from librdkafka and owns it; its string is copied before it is destroyed.
    unsafe {
        let code = RDKafkaErrorCode::from(rd::rd_kafka_error_code(error));
        let reason = CStr::from_ptr(rd::rd_kafka_error_string(error)).to_string_lossy().into_owned();
        rd::rd_kafka_error_destroy(error);
        Err((code, reason))
    }
}

fn check(code: RespErr) -> Result<(), RDKafkaErrorCode> {
    match code {
        RespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(code.into()),
    }
}

fn millis(timeout: Duration) -> i32 {
    // Rounded up: a wait of less than a millisecond must not become a busy loop.
    timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32
}

/// The elements of a list that is alive as long as the result is used.
fn elements<'a>(list: *const rd::rd_kafka_topic_partition_list_t) -> &'a [rd::rd_kafka_topic_partition_t] {
    // SAFETY: every caller holds the owner of the list (an event or a `TopicPartitionList`) while it uses the slice, and
    // nothing changes the list meanwhile.
    unsafe {
        match list.as_ref() {
            Some(list) if list.cnt > 0 => slice::from_raw_parts(list.elems, list.cnt as usize),
            _ => &[],
        }
    }
}

/// The text beside a committed offset.
fn metadata(element: &rd::rd_kafka_topic_partition_t) -> String {
    if element.metadata.is_null() {
        return String::new();
    }
    // SAFETY: the element is alive, and librdkafka gives the length of its metadata.
    let text = unsafe { slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) };
    String::from_utf8_lossy(text).into_owned()
}
