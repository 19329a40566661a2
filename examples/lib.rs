//! Runnable programs, one idea each. `cargo run -p partita-examples --example hello`.
