//! The Kafka ones.
