//! Was it sterile? The twelve breach rules, as pure functions of facts.
//!
//! Facts are grouped into units that are judged as a whole, each from all that is known of it: an
//! [`item`], a [`mount`], a visit ([`session`]), a [`sterilizer`] with its cycles. A verdict
//! depends on the facts alone, not on the order in which they arrived nor on verdicts before; so
//! evaluating what changed gives the same as evaluating everything. [`pass`] finds the units that a
//! change concerns, and `work` reads their facts; only these two do IO.
//!
//! | rule | unit | what |
//! |---|---|---|
//! | 1 | visit | injection with no needle mount in this visit |
//! | 2 | mount, item | the same mount, or the same single-use serial, in two visits |
//! | 3 | item | a single-use item inside a sterilisation cycle |
//! | 4 | item | a reusable item used with no released, passed cycle since its previous visit |
//! | 5 | sterilizer, item | cycle failed or indeterminate |
//! | 6 | mount, visit, item | expired, pack breached, wet load |
//! | 7 | item | reprocessed more often than allowed |
//! | 8 | sterilizer | required test missing or failed |
//! | 9 | sterilizer, item | positive biological indicator: everything since the last negative one |
//! | 10 | item | tap-water rinse |
//! | 11 | mount | more punctures than the needle is good for |
//! | 12 | mount, visit | lot recalled or expired |

pub mod calendar;
pub mod conditions;
pub mod curve;
pub mod item;
pub mod mount;
pub mod pass;
pub mod rules;
pub mod session;
pub mod sterilizer;
#[cfg(test)]
mod tests;
mod work;

pub use rules::{Book, Clock, RULE_VERSION};
