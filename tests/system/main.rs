//! The default system tests.
