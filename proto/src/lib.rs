//! The messages of `partita.v1`, generated from `proto/partita/v1`.

/// `partita.v1`: the record's envelope and its companions.
#[allow(missing_docs, unreachable_pub)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/partita.v1.rs"));
}
