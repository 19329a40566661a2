//! Handing a record to librdkafka without copying its value.
//!
//! librdkafka reads the value in place: from `produce` until the delivery report, also where the record times out, is purged or
//! the client is dropped (all of which end in a report). So the bytes are owned by the record's [`Delivery`], which travels
//! through librdkafka as the record's opaque and comes back with the report. The key is copied by librdkafka.
#![allow(unsafe_code)]

use super::{
    client::Context,
    delivery::{Delivery, Meters, Persisted, TARGETS, outcome},
};
use rdkafka::{
    ClientConfig, ClientContext, IntoOpaque,
    bindings::{self as rd, rd_kafka_msg_status_t as Status},
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{DeliveryResult, Message},
    producer::{NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer},
};
use std::{
    ffi::CString,
    os::raw::c_void,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The context of a producer: it ends deliveries.
pub(super) struct Deliveries {
    client: Context,
    meters: Arc<[Meters; TARGETS]>,
    delivered: Arc<AtomicU64>,
}

impl Deliveries {
    /// `delivered` counts the records that were written.
    pub(super) fn new(client: Context, meters: Arc<[Meters; TARGETS]>, delivered: Arc<AtomicU64>) -> Self {
        Self { client, meters, delivered }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let (message, error) = match result {
            Ok(message) => (message, None),
            Err((error, message)) => {
                (message, Some(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)))
            }
        };
        // SAFETY: the report's message is alive while it is reported.
        let persisted = match unsafe { rd::rd_kafka_message_status(message.ptr()) } {
            Status::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => Persisted::No,
            Status::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED => Persisted::Perhaps,
            Status::RD_KAFKA_MSG_STATUS_PERSISTED => Persisted::Yes,
        };
        if error.is_none() {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        let outcome = outcome(delivery.partition, message.offset(), error, persisted);
        delivery.end(outcome, &self.meters);
    }
}

/// A producer for one topic, with the thread that serves its delivery reports.
///
/// One for each topic: librdkafka serves a broker's partitions in turn, each time from the next one on, idle ones too. Behind the idle
/// partitions of a second topic the first busy one would come first again and again, and the last ones would wait.
pub(super) struct Lender {
    // Declared first: the topic goes before the client it belongs to.
    topic: Topic,
    producer: ThreadedProducer<Deliveries>,
}

struct Topic(*mut rd::rd_kafka_topic_t);

// SAFETY: a topic handle is reference counted and may be used from any thread.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    fn new(producer: &ThreadedProducer<Deliveries>, name: &str) -> KafkaResult<Self> {
        let name = CString::new(name)?;
        // SAFETY: the client is alive, and so is the name for the call.
        let topic = unsafe {
            rd::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), std::ptr::null_mut())
        };
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
    pub(super) fn new(config: &ClientConfig, topic: &str, context: Deliveries) -> KafkaResult<Self> {
        let producer: ThreadedProducer<Deliveries> = config.create_with_context(context)?;
        let topic = Topic::new(&producer, topic)?;
        Ok(Self { topic, producer })
    }

    /// Hands a record over at once, or gives it back with the reason. Never blocks.
    pub(super) fn produce(
        &self,
        key: &[u8],
        delivery: Box<Delivery>,
    ) -> Result<(), (RDKafkaErrorCode, Box<Delivery>)> {
        let (value, len) = (delivery.value.as_ptr() as *mut c_void, delivery.value.len());
        let (topic, partition) = (self.topic.0, delivery.partition.0 as i32);
        let opaque = delivery.into_ptr();
        // SAFETY: topic and client are alive. Without F_COPY and F_FREE librdkafka only reads the value, which the delivery keeps
        // where it is until its report; the key is copied within the call.
        let (refused, code) = unsafe {
            let refused =
                rd::rd_kafka_produce(topic, partition, 0, value, len, key.as_ptr().cast(), key.len(), opaque);
            (refused, rd::rd_kafka_last_error())
        };
        if refused == 0 { Ok(()) } else { Err((code.into(), give_back(opaque))) }
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
        let opaque = delivery.into_ptr();
        // SAFETY: as for `produce`. The headers are librdkafka's once the record is taken, and destroyed here where it is not.
        let code = unsafe {
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
            let rk = self.producer.client().native_ptr();
            let error = rd::rd_kafka_produceva(rk, arguments.as_ptr(), arguments.len());
            super::native::take_error(error).map_err(|(code, _)| {
                rd::rd_kafka_headers_destroy(headers);
                code
            })
        };
        code.map_err(|code| (code, give_back(opaque)))
    }

    /// The error that broke the producer for good, if there is one.
    pub(super) fn fatal(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"))
    }

    /// How many records librdkafka still holds.
    pub(super) fn held(&self) -> i32 {
        self.producer.in_flight_count()
    }

    /// Breaks the producer as an idempotence error would.
    #[cfg(test)]
    pub(super) fn break_for_good(&self) {
        // SAFETY: the client is alive, and the reason for the call.
        unsafe {
            rd::rd_kafka_test_fatal_error(
                self.producer.client().native_ptr(),
                rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                c"a test".as_ptr(),
            );
        }
    }
}

fn argument(vtype: rd::rd_kafka_vtype_t) -> rd::rd_kafka_vu_t {
    rd::rd_kafka_vu_t { vtype, u: rd::rd_kafka_vu_s__bindgen_ty_1 { _pad: [0; 64] } }
}

fn give_back(opaque: *mut c_void) -> Box<Delivery> {
    // SAFETY: the opaque came from `into_ptr` just before, and librdkafka refused the record: nobody else has it.
    unsafe { Box::from_ptr(opaque) }
}
