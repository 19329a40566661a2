//! A record's header by its name, whatever the names of its others are: rdkafka's own way to them panics at one that is not UTF-8, and
//! anybody may have written a record.
#![allow(unsafe_code)]

use rdkafka::{
    bindings::{self as rd, rd_kafka_resp_err_t as RespErr},
    message::BorrowedMessage,
};
use std::{ffi::CString, ptr, slice};

/// The value of the last header of this name.
pub(super) fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m [u8]> {
    let name = CString::new(name).ok()?;
    let (mut headers, mut value, mut size) = (ptr::null_mut(), ptr::null(), 0);
    // SAFETY: the message is alive, and owns the headers and their values; both are borrowed for as long as it is. The name is alive for the
    // call.
    unsafe {
        let found = rd::rd_kafka_message_headers(message.ptr(), &raw mut headers);
        if found != RespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let found = rd::rd_kafka_header_get_last(headers, name.as_ptr(), &raw mut value, &raw mut size);
        let is_there = found == RespErr::RD_KAFKA_RESP_ERR_NO_ERROR && !value.is_null();
        is_there.then(|| slice::from_raw_parts(value.cast(), size))
    }
}
