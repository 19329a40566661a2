//! Handing a record to librdkafka without copying its value.
//!
//! librdkafka reads the value in place: from `produce` until the record's [report](super::reports), which comes also where the record times
//! out or is purged, as it is when the client is dropped. So the bytes are owned by the record's [`Delivery`], which travels through
//! librdkafka as the record's opaque and comes back with the report. The key is copied by librdkafka.
#![allow(unsafe_code)]

use super::{
    client::Context,
    delivery::Delivery,
    native::{Polled, Queue},
    reports::Deliveries,
};
#[cfg(test)]
use partita_core::Partition;
use rdkafka::{
    ClientConfig, bindings as rd,
    client::Client,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaType,
};
use std::{
    ffi::CString,
    os::raw::c_void,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long the records that a dropped producer still holds are waited for.
const PURGED_WITHIN: Duration = Duration::from_millis(500);

/// A producer for one topic, with the thread that serves its logs and errors.
///
/// One for each topic: librdkafka serves a broker's partitions in turn, each time from the next one on, idle ones too. Behind the idle
/// partitions of a second topic the first busy one would come first again and again, and the last ones would wait.
pub(super) struct Lender {
    // Declared first: it goes before the client it belongs to.
    topic: Topic,
    served: Arc<Served>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread serves.
struct Served {
    // In this order: the queue goes before the client it belongs to, and the client before what it calls.
    queue: Queue,
    client: Client<Context>,
    deliveries: Arc<Deliveries>,
    stop: AtomicBool,
}

impl Served {
    /// Whether there was anything.
    fn serve(&self, timeout: Duration) -> bool {
        match self.queue.poll(timeout) {
            Polled::Nothing => return false,
            Polled::Error { code, fatal, reason, .. } => {
                let code = if fatal { RDKafkaErrorCode::Fatal } else { code };
                self.client.context().hand_on(code, &reason);
            }
            Polled::Line { facility, text } => self.deliveries.disowned.hear(&facility, &text),
            _ => {}
        }
        true
    }
}

struct Topic(*mut rd::rd_kafka_topic_t);

// SAFETY: a topic handle is reference counted and may be used from any thread.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    fn new(client: &Client<Context>, name: &str) -> KafkaResult<Self> {
        let name = CString::new(name)?;
        // SAFETY: the client is alive, and so is the name for the call.
        let topic = unsafe { rd::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        if topic.is_null() {
            return Err(KafkaError::ClientCreation(format!("{name:?} is not a topic's name")));
        }
        Ok(Self(topic))
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `Topic::new` and is given back once. Records on their way hold references of their own.
        unsafe { rd::rd_kafka_topic_destroy(self.0) }
    }
}

impl Lender {
    pub(super) fn new(
        config: &ClientConfig,
        topic: &str,
        context: Context,
        deliveries: Deliveries,
    ) -> KafkaResult<Self> {
        let native = config.create_native_config()?;
        let deliveries = Arc::new(deliveries);
        // SAFETY: the configuration is alive, and nobody else has it. `deliveries` lives until the client is gone.
        unsafe {
            rd::rd_kafka_conf_set_events(native.ptr(), rd::RD_KAFKA_EVENT_ERROR);
            deliveries.intercept(&native);
        }
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_PRODUCER, context)?;
        let topic = Topic::new(&client, topic)?;
        let queue = Queue::main(&client);
        let served = Arc::new(Served { queue, client, deliveries, stop: AtomicBool::new(false) });
        let mut lender = Self { topic, served: served.clone(), thread: None };
        let thread = thread::Builder::new().name("partita-kafka-producer".into()).spawn(move || {
            while !served.stop.load(Ordering::Acquire) {
                served.serve(Duration::from_secs(1));
            }
        });
        lender.thread = Some(thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?);
        Ok(lender)
    }

    /// Hands a record over at once, or gives it back with the reason. Never blocks.
    pub(super) fn produce(
        &self,
        key: &[u8],
        delivery: Box<Delivery>,
    ) -> Result<(), (RDKafkaErrorCode, Box<Delivery>)> {
        let (value, len) = (delivery.value.as_ptr() as *mut c_void, delivery.value.len());
        let (topic, partition) = (self.topic.0, delivery.partition.0 as i32);
        self.served.deliveries.lend(delivery, |opaque| {
            // SAFETY: topic and client are alive. Without F_COPY and F_FREE librdkafka only reads the value, which the delivery keeps
            // where it is until its report; the key is copied within the call.
            let (refused, code) = unsafe {
                let key_bytes = key.as_ptr().cast();
                let refused =
                    rd::rd_kafka_produce(topic, partition, 0, value, len, key_bytes, key.len(), opaque);
                (refused, rd::rd_kafka_last_error())
            };
            if refused == 0 { Ok(()) } else { Err(code.into()) }
        })
    }

    /// As `produce`, with a header.
    pub(super) fn produce_with_header(
        &self,
        key: &[u8],
        delivery: Box<Delivery>,
        name: &str,
        header: &[u8],
    ) -> Result<(), (RDKafkaErrorCode, Box<Delivery>)> {
        let (value, len) = (delivery.value.as_ptr() as *mut c_void, delivery.value.len());
        let (topic, partition) = (self.topic.0, delivery.partition.0 as i32);
        // SAFETY: as for `produce`. The headers are librdkafka's once the record is taken, and destroyed here where it is not.
        self.served.deliveries.lend(delivery, |opaque| unsafe {
            let headers = rd::rd_kafka_headers_new(1);
            rd::rd_kafka_header_add(
                headers,
                name.as_ptr().cast(),
                name.len() as isize,
                header.as_ptr().cast(),
                header.len() as isize,
            );
            let mut arguments = [
                argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT),
                argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION),
                argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE),
                argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY),
                argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS),
                argument(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE),
            ];
            arguments[0].u.rkt = topic;
            arguments[1].u.i32_ = partition;
            arguments[2].u.mem.ptr = value;
            arguments[2].u.mem.size = len;
            arguments[3].u.mem.ptr = key.as_ptr() as *mut c_void;
            arguments[3].u.mem.size = key.len();
            arguments[4].u.headers = headers;
            arguments[5].u.ptr = opaque;
            let rk = self.served.client.native_ptr();
            let error = rd::rd_kafka_produceva(rk, arguments.as_ptr(), arguments.len());
            super::native::take_error(error).map_err(|(code, _)| {
                rd::rd_kafka_headers_destroy(headers);
                code
            })
        })
    }

    /// The error that broke the producer for good, if there is one.
    pub(super) fn fatal(&self) -> Option<String> {
        self.served.client.fatal_error().map(|(code, reason)| format!("{code}: {reason}"))
    }

    /// How many records librdkafka still holds.
    pub(super) fn held(&self) -> i32 {
        // SAFETY: the client is alive.
        unsafe { rd::rd_kafka_outq_len(self.served.client.native_ptr()) }
    }

    /// Whether a broker disowned a partition that it was asked to append to.
    #[cfg(test)]
    pub(super) fn disowned(&self, partition: Partition, since: Instant) -> bool {
        self.served.deliveries.disowned.since(partition, since)
    }

    /// Breaks the producer as an idempotence error would.
    #[cfg(test)]
    pub(super) fn break_for_good(&self) {
        // SAFETY: the client is alive, and the reason for the call.
        unsafe {
            rd::rd_kafka_test_fatal_error(
                self.served.client.native_ptr(),
                rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                c"a test".as_ptr(),
            );
        }
    }
}

impl Drop for Lender {
    /// What is still held is given up and answered.
    fn drop(&mut self) {
        self.served.stop.store(true, Ordering::Release);
        self.served.queue.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let until = Instant::now() + PURGED_WITHIN;
        // What brokers answered so far decides what is said of the records that are given up.
        while self.served.serve(Duration::ZERO) && Instant::now() < until {}
        while self.held() > 0 && Instant::now() < until {
            // Again and again: a record that moves from one of librdkafka's queues to another meanwhile may be missed.
            // SAFETY: the client is alive, and the flags are valid: the call cannot fail.
            unsafe {
                let all = rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT;
                rd::rd_kafka_purge(self.served.client.native_ptr(), all);
            }
            self.served.serve(Duration::from_millis(10));
        }
    }
}

fn argument(vtype: rd::rd_kafka_vtype_t) -> rd::rd_kafka_vu_t {
    rd::rd_kafka_vu_t { vtype, u: rd::rd_kafka_vu_s__bindgen_ty_1 { _pad: [0; 64] } }
}
