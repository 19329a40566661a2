//! What comes from the consumer's queue, taken apart; and records in the buffer they were fetched in.

use super::{Polled, check, elements};
use crate::log::kafka::client;
use partita_core::{CommitId, Offset, Partition};
use rdkafka::{
    bindings::{self as rd, rd_kafka_resp_err_t as RespErr},
    config::RDKafkaLogLevel,
    error::RDKafkaErrorCode,
};
use std::{ffi::CStr, os::raw::c_char, ptr, slice};

pub(super) struct Event(pub(super) *mut rd::rd_kafka_event_t);

// SAFETY: an event is owned by one holder at a time, and librdkafka lets any thread read and destroy it.
unsafe impl Send for Event {}
// SAFETY: shared access only reads fields that do not change once the event exists.
unsafe impl Sync for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is owned, and destroyed once.
        unsafe { rd::rd_kafka_event_destroy(self.0) }
    }
}

impl Event {
    fn code(&self) -> RespErr {
        // SAFETY: the event is alive.
        unsafe { rd::rd_kafka_event_error(self.0) }
    }

    fn list(&self) -> &[rd::rd_kafka_topic_partition_t] {
        // SAFETY: the event is alive and owns the list.
        elements(unsafe { rd::rd_kafka_event_topic_partition_list(self.0) })
    }

    pub(super) fn rebalance(&self) -> Polled {
        Polled::Rebalance {
            assign: self.code() == RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS,
            partitions: self.list().iter().map(|element| Partition(element.partition as u32)).collect(),
        }
    }

    pub(super) fn committed(&self) -> Polled {
        // SAFETY: the event is alive; the opaque is the number that `commit` gave.
        let commit = CommitId(unsafe { rd::rd_kafka_event_opaque(self.0) } as usize as u64);
        let outcome = |element: &rd::rd_kafka_topic_partition_t| {
            (Partition(element.partition as u32), check(element.err).err())
        };
        Polled::Committed {
            commit,
            partitions: self.list().iter().map(outcome).collect(),
            error: check(self.code()).err(),
        }
    }

    pub(super) fn error(&self) -> Polled {
        let code = RDKafkaErrorCode::from(self.code());
        client::count(code);
        // SAFETY: the event is alive; the string belongs to it and is copied; the partition is owned here and destroyed once.
        unsafe {
            let reason = text(rd::rd_kafka_event_error_string(self.0));
            let partition = rd::rd_kafka_event_topic_partition(self.0);
            let place = partition.as_ref().map(|place| (Partition(place.partition as u32), place.offset));
            if !partition.is_null() {
                rd::rd_kafka_topic_partition_destroy(partition);
            }
            let fatal = rd::rd_kafka_event_error_is_fatal(self.0) != 0;
            Polled::Error { code, fatal, partition: place, reason }
        }
    }

    pub(super) fn log(&self) -> Polled {
        let (mut facility, mut message, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the event is alive; the strings belong to it and are used before it is destroyed.
        unsafe {
            if rd::rd_kafka_event_log(self.0, &mut facility, &mut message, &mut level) != 0 {
                return Polled::Served;
            }
            let (facility, text) = (text(facility), text(message));
            client::log(log_level(level), &facility, &text);
            Polled::Line { facility, text }
        }
    }
}

fn log_level(level: i32) -> RDKafkaLogLevel {
    match level {
        ..=3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    }
}

/// # Safety
/// The string is null or ends with a zero byte and is alive for the call.
unsafe fn text(string: *const c_char) -> String {
    // SAFETY: by this function's contract.
    unsafe {
        if string.is_null() { String::new() } else { CStr::from_ptr(string).to_string_lossy().trim().into() }
    }
}

/// A record that lies in the buffer it was fetched in. The consumer it came from must outlive it.
pub(in crate::log::kafka) struct Fetched {
    event: Event,
    message: *const rd::rd_kafka_message_t,
}

// SAFETY: the message belongs to the event, which is `Send` and `Sync`, and is only read.
unsafe impl Send for Fetched {}
// SAFETY: as above.
unsafe impl Sync for Fetched {}

impl Fetched {
    pub(super) fn of(event: Event) -> Polled {
        // SAFETY: the event is alive; the message it returns lives as long as the event.
        let message = unsafe { rd::rd_kafka_event_message_next(event.0) };
        // SAFETY: as above; null means that the event has no message.
        match unsafe { message.as_ref() } {
            None => Polled::Served,
            Some(raw) => match check(raw.err) {
                Ok(()) => Polled::Record(Self { event, message }),
                Err(code) => {
                    client::count(code);
                    let partition = Some((Partition(raw.partition as u32), raw.offset));
                    Polled::Error { code, fatal: false, partition, reason: code.to_string() }
                }
            },
        }
    }

    fn raw(&self) -> &rd::rd_kafka_message_t {
        let _alive = &self.event;
        // SAFETY: the event is alive, and the message with it.
        unsafe { &*self.message }
    }

    pub(in crate::log::kafka) fn partition(&self) -> Partition {
        Partition(self.raw().partition as u32)
    }

    pub(in crate::log::kafka) fn offset(&self) -> Offset {
        Offset(self.raw().offset as u64)
    }

    pub(in crate::log::kafka) fn timestamp_ms(&self) -> i64 {
        // SAFETY: the message is alive; the type of the timestamp is not asked for.
        unsafe { rd::rd_kafka_message_timestamp(self.message, ptr::null_mut()) }
    }

    pub(in crate::log::kafka) fn key(&self) -> &[u8] {
        let raw = self.raw();
        bytes(raw.key.cast(), raw.key_len, self)
    }

    pub(in crate::log::kafka) fn value(&self) -> &[u8] {
        let raw = self.raw();
        bytes(raw.payload.cast(), raw.len, self)
    }
}

fn bytes(start: *const u8, len: usize, _owner: &Fetched) -> &[u8] {
    // SAFETY: librdkafka gives the start and the length of a buffer that lives as long as the message; null means none.
    unsafe { if start.is_null() || len == 0 { &[] } else { slice::from_raw_parts(start, len) } }
}
