//! A topic's id: it is another one when the topic was deleted and made again.
#![allow(unsafe_code)]

use rdkafka::{ClientContext, bindings as rd, client::Client};
use std::{
    ffi::{CStr, CString},
    ptr,
    time::Duration,
};

/// Asks the cluster for a topic's id. `Ok(None)`: the cluster is too old to have ids.
pub(super) fn fetch<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, String> {
    let name = CString::new(topic).map_err(|error| error.to_string())?;
    let mut names = [name.as_ptr()];
    let rk = client.native_ptr();
    let millis = timeout.as_millis() as i32;
    // SAFETY: every object made here is destroyed once, after its last use; the names outlive the call that copies them; the
    // result and what is reached from it live as long as the event.
    unsafe {
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options =
            rd::rd_kafka_AdminOptions_new(rk, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        let queue = rd::rd_kafka_queue_new(rk);
        rd::rd_kafka_DescribeTopics(rk, topics, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, millis + 500);
        let answer = read(event);
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_TopicCollection_destroy(topics);
        answer
    }
}

/// # Safety
/// The event is null or alive for the call.
unsafe fn read(event: *mut rd::rd_kafka_event_t) -> Result<Option<String>, String> {
    // SAFETY: by this function's contract; what is reached from the event lives as long as it does.
    unsafe {
        if event.is_null() {
            return Err("no answer".into());
        }
        if rd::rd_kafka_event_error(event) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let reason = rd::rd_kafka_event_error_string(event);
            return Err(if reason.is_null() {
                "unknown error".into()
            } else {
                CStr::from_ptr(reason).to_string_lossy().into_owned()
            });
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("not the answer to this question".into());
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count != 1 {
            return Err(format!("{count} topics in the answer"));
        }
        let topic = *topics;
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null()
            && rd::rd_kafka_error_code(error) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return Err(CStr::from_ptr(rd::rd_kafka_error_string(error)).to_string_lossy().into_owned());
        }
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() || rd::rd_kafka_Uuid_most_significant_bits(id) == 0 {
            return Ok(None);
        }
        let text = rd::rd_kafka_Uuid_base64str(id);
        Ok((!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned()))
    }
}
