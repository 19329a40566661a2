//! The front door over real HTTP, on a log that does what a test tells it.

mod access;
mod bodies;
mod early;
mod encodings;
mod events;
mod hostile;
mod idempotency;
mod lifecycle;
mod statuses;
mod support;
mod tls;
