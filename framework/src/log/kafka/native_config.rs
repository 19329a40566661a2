//! The names of all properties that the built librdkafka knows.
#![allow(unsafe_code)]

use rdkafka::{ClientConfig, bindings as rd};
use std::{ffi::CStr, os::raw::c_char};

/// Every property's name; a property that has several is there under one of them.
pub(super) fn property_names() -> Vec<String> {
    let Ok(native) = ClientConfig::new().create_native_config() else { return Vec::new() };
    let (mut globals, mut topics) = (0, 0);
    // SAFETY: the configuration is alive for the calls; each array is read within its stated length and freed once.
    unsafe {
        let global = rd::rd_kafka_conf_dump(native.ptr(), &mut globals);
        let mut names = names(global, globals);
        rd::rd_kafka_conf_dump_free(global, globals);
        let topic = rd::rd_kafka_topic_conf_new();
        let of_topic = rd::rd_kafka_topic_conf_dump(topic, &mut topics);
        names.extend(self::names(of_topic, topics));
        rd::rd_kafka_conf_dump_free(of_topic, topics);
        rd::rd_kafka_topic_conf_destroy(topic);
        names
    }
}

/// # Safety
/// `dump` has `count` strings, names and values in turn.
unsafe fn names(dump: *mut *const c_char, count: usize) -> Vec<String> {
    (0..count)
        .step_by(2)
        // SAFETY: by this function's contract.
        .map(|index| unsafe { CStr::from_ptr(*dump.add(index)) }.to_string_lossy().into_owned())
        .collect()
}
