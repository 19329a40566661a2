//! What became of a record: librdkafka's interceptor, which ends its delivery.
//!
//! It is called on the thread that read the broker's answer, and not by way of a queue and a thread that polls it: ADR 29.
#![allow(unsafe_code)]

use super::{
    delivery::{Delivery, Meters, Persisted, TARGETS, Target, outcome},
    disowned::Disowned,
};
use bytes::Bytes;
use crossbeam_channel::Sender;
use rdkafka::{
    bindings::{self as rd, rd_kafka_msg_status_t as Status, rd_kafka_resp_err_t as RespErr},
    config::NativeClientConfig,
    error::RDKafkaErrorCode,
};
use std::{
    cell::Cell,
    ffi::CStr,
    os::raw::{c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What librdkafka calls the interceptor in its log.
const NAME: &CStr = c"partita";

/// Where deliveries end.
pub(super) struct Deliveries {
    meters: Arc<[Meters; TARGETS]>,
    delivered: Arc<AtomicU64>,
    /// Where the values of parked records end: they lie in what a consumer fetched, and the last one may take that consumer along.
    spent: Sender<Bytes>,
    /// What the client's log lines say goes here.
    pub(super) disowned: Disowned,
}

impl Deliveries {
    /// `delivered` counts the records that were written.
    pub(super) fn new(
        meters: Arc<[Meters; TARGETS]>,
        delivered: Arc<AtomicU64>,
        spent: Sender<Bytes>,
    ) -> Self {
        Self { meters, delivered, spent, disowned: Disowned::default() }
    }

    /// Has the client that will be made of a configuration report here.
    ///
    /// # Safety
    /// This outlives the client.
    pub(super) unsafe fn intercept(self: &Arc<Self>, config: &NativeClientConfig) {
        let opaque = Arc::as_ptr(self).cast_mut().cast();
        // SAFETY: the configuration is alive, and the name is copied. The rest is this function's contract.
        unsafe {
            rd::rd_kafka_conf_interceptor_add_on_new(config.ptr(), NAME.as_ptr(), Some(on_new), opaque);
        }
    }

    /// Has `give` hand a record to librdkafka, or takes it back.
    pub(super) fn lend(
        &self,
        delivery: Box<Delivery>,
        give: impl FnOnce(*mut c_void) -> Result<(), RDKafkaErrorCode>,
    ) -> Result<(), (RDKafkaErrorCode, Box<Delivery>)> {
        let opaque = into_opaque(delivery);
        LENDING.set(opaque);
        let given = give(opaque);
        LENDING.set(ptr::null_mut());
        match (given, REPORTED.take()) {
            (Ok(()), None) => Ok(()),
            // It was taken and given up within the call: its partition went away just then.
            (Ok(()), Some(report)) => {
                // SAFETY: the report was for this record, and left to this thread.
                self.end(*unsafe { from_opaque(opaque) }, report);
                Ok(())
            }
            // SAFETY: librdkafka refused the record: nobody else has it.
            (Err(code), _) => Err((code, unsafe { from_opaque(opaque) })),
        }
    }

    fn end(&self, delivery: Delivery, report: Report) {
        let error = (report.error != 0).then(|| {
            RespErr::try_from(report.error).map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from)
        });
        if error.is_none() {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        let parked = (delivery.topic == Target::Parking).then(|| delivery.value.clone());
        let persisted = match report.persisted {
            Persisted::No if error.is_some() && self.disowned.since(delivery.partition, delivery.started) => {
                Persisted::Perhaps
            }
            persisted => persisted,
        };
        let outcome = outcome(delivery.partition, report.offset, error, persisted);
        delivery.end(outcome, &self.meters);
        if let Some(value) = parked {
            let _ = self.spent.send(value);
        }
    }
}

/// What librdkafka says of a record in the end.
#[derive(Debug, Clone, Copy)]
struct Report {
    offset: i64,
    /// A `rd_kafka_resp_err_t`, or a broker's code that this librdkafka does not know.
    error: i32,
    persisted: Persisted,
}

impl Report {
    /// # Safety
    /// The message is alive.
    unsafe fn of(message: *const rd::rd_kafka_message_t) -> Self {
        // SAFETY: by this function's contract. The code is read as a number: it need not be one of the enumeration.
        unsafe {
            Self {
                offset: (*message).offset,
                error: (&raw const (*message).err).cast::<i32>().read(),
                persisted: match rd::rd_kafka_message_status(message) {
                    Status::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => Persisted::No,
                    Status::RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED => Persisted::Perhaps,
                    Status::RD_KAFKA_MSG_STATUS_PERSISTED => Persisted::Yes,
                },
            }
        }
    }
}

thread_local! {
    /// The opaque of the record that this thread is handing over, and what was said of it meanwhile.
    static LENDING: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
    static REPORTED: Cell<Option<Report>> = const { Cell::new(None) };
}

/// Called by `rd_kafka_new`.
unsafe extern "C" fn on_new(
    client: *mut rd::rd_kafka_t,
    _: *const rd::rd_kafka_conf_t,
    deliveries: *mut c_void,
    _: *mut c_char,
    _: usize,
) -> RespErr {
    // SAFETY: the client is being made, which is when interceptors are added. The name is copied; `deliveries` outlives the client.
    unsafe {
        rd::rd_kafka_interceptor_add_on_acknowledgement(
            client,
            NAME.as_ptr(),
            Some(on_acknowledgement),
            deliveries,
        )
    }
}

/// Called once for each record that was taken, when librdkafka has done with it; and for some that it refuses, within the call.
unsafe extern "C" fn on_acknowledgement(
    _: *mut rd::rd_kafka_t,
    message: *mut rd::rd_kafka_message_t,
    deliveries: *mut c_void,
) -> RespErr {
    // SAFETY: the message is alive for this call. `deliveries` is the `Lender`'s, which outlives the client.
    let (opaque, report, deliveries) =
        unsafe { ((*message)._private, Report::of(message), &*deliveries.cast::<Deliveries>()) };
    if opaque == LENDING.get() {
        // Whether it was taken is known when the call returns.
        REPORTED.set(Some(report));
        return RespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    // A panic must not unwind into C. What it dropped is answered as unknown.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the record was taken, and this is called once for it: nobody else has the opaque, which `lend` made.
        deliveries.end(*unsafe { from_opaque(opaque) }, report);
    }));
    if ended.is_err() {
        tracing::error!("a panic while an append was being answered");
    }
    RespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Another thread takes it out again.
fn into_opaque<T: Send>(value: Box<T>) -> *mut c_void {
    Box::into_raw(value).cast()
}

/// # Safety
/// The opaque is from `into_opaque` of a delivery, and nobody else takes it out.
unsafe fn from_opaque(opaque: *mut c_void) -> Box<Delivery> {
    // SAFETY: by this function's contract.
    unsafe { Box::from_raw(opaque.cast()) }
}
