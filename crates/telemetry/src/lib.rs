//! The contract between devices and doseline.
//!
//! What it is for: the message types of `/proto` ([`v1`]), the topic grammar ([`topic`]), the
//! limits that hold before anything is allocated ([`limits`]), canonical JSON ([`json`]), reports
//! that only exist validated ([`report`]), what the bridge needs of one ([`head`], read field by
//! field: [`wire`]), plausibility by model ([`plausibility`]), what a device's clock may show
//! ([`device_time`]), the sequence ledger ([`ledger`]) with its interval sets ([`interval`]), the
//! names of quarantined things ([`quarantine`]) and a reader that goes as far as damaged bytes
//! allow ([`inspect`]).
//!
//! Absent: IO, clocks, threads, randomness. Time comes in as a value, so everything here can be
//! replayed.
//!
//! Invariants:
//! - A [`report::Report`] has been checked against every limit of the contract; code that holds one
//!   need not check again.
//! - Nothing here changes a measured value: what cannot be used is refused with a
//!   [`reject::Reason`]. What is wrong with one event refuses that event, not its report.
//! - A [`ledger::Ledger`] admits each sequence number of a boot once; from quarantine it moves to
//!   stored, never back.

pub mod device_time;
pub mod head;
pub mod hex;
pub mod inspect;
pub mod interval;
pub mod json;
pub mod kafka;
pub mod ledger;
pub mod limits;
pub mod plausibility;
pub mod quarantine;
pub mod receipt;
pub mod reject;
pub mod report;
pub mod status;
pub mod text;
pub mod topic;
mod usual;
pub mod wire;

/// Message types generated from `proto/doseline/telemetry/v1/telemetry.proto`, which documents
/// every field.
#[allow(missing_docs, clippy::doc_markdown)]
pub mod v1 {
    include!("generated/doseline.telemetry.v1.rs");
}

/// The compiled contract as a serialized `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.binpb");
