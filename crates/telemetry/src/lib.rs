//! The contract between devices and doseline: what a device may send, and what it means. And the
//! contract between people and doseline: which [`command`]s they may give.
//!
//! Boundary: the only crate that knows the wire format. It does no IO and has no clocks, threads or
//! randomness. Time comes in as a value, so that everything here can be repeated.
//!
//! Invariants:
//! - A [`report::Report`] has been checked against every limit of the contract. Code that holds one
//!   need not check again.
//! - Nothing here changes a measured value. What cannot be used is refused with a
//!   [`reject::Reason`]. A fault of one event refuses that event, not its report.
//! - A [`ledger::Ledger`] admits each sequence number of a boot once. A number may move from
//!   quarantined to stored, never back.
//! - Every reader of report bytes knows every field of `/proto`, see [`reading`].
//!
//! Start reading at [`report`] (what a valid report is), [`reading`] (how its bytes are read) and
//! [`ledger`] (which events are new). Message types are in [`v1`], topics in [`topic`], limits in
//! [`limits`].

pub mod command;
pub mod device_time;
pub mod head;
pub mod hex;
pub mod interval;
pub mod json;
pub mod kafka;
pub mod ledger;
pub mod limits;
pub mod plausibility;
pub mod quarantine;
pub mod reading;
pub mod receipt;
pub mod reject;
pub mod report;
pub mod status;
pub mod text;
pub mod topic;

/// Message types generated from `proto/doseline/telemetry/v1/telemetry.proto`, which documents
/// every field.
#[allow(missing_docs, clippy::doc_markdown)]
pub mod v1 {
    include!("generated/doseline.telemetry.v1.rs");
}

/// Message types generated from `proto/doseline/commands/v1/commands.proto`, which documents every
/// field.
#[allow(missing_docs, clippy::doc_markdown)]
pub mod commands {
    include!("generated/doseline.commands.v1.rs");
}

/// The compiled contract as a serialized `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.binpb");
