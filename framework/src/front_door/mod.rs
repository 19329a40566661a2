//! The front door: HTTP in, durable, 202.
//!
//! A request's way: `post_task` reads key and headers and asks for admission; `receive` takes the body into a
//! buffer whose bytes are reserved first; `compress` may make it smaller; the log appends it; the receipt is the answer. Every
//! refusal is a [`Problem`] and goes out through `refuse`, which sees to it that a sender in the middle of its
//! body still gets it.

mod access;
mod admission;
mod admitted;
mod append;
mod body;
mod budget;
mod compress;
mod decode;
mod decoded;
mod door;
mod events;
mod expect;
mod http1;
mod http2;
mod idempotency;
mod intake;
mod key;
mod meter;
mod openapi;
mod options;
mod post_task;
mod problem;
mod receipt;
mod receive;
mod refuse;
mod request_id;
mod server;
mod stamp;
mod task_head;
#[cfg(test)]
mod tests;
mod tls;

pub use access::{Caller, Verb, check_tokens, may_read};
pub use admission::{LogHealthNow, PartitionHealthOf};
pub use options::{FrontDoorOptions, Routes};
pub use problem::{Problem, ProblemCode};
pub use server::{FrontDoor, FrontDoorHandle};
