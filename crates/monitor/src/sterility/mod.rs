//! Was it sterile? The breach rules, as pure functions of facts.
//!
//! Facts are grouped into units: an [`item`], a [`mount`], a [`session`], and a [`sterilizer`] with
//! its cycles. Each unit is judged as a whole, from all facts that are known of it. A verdict does
//! not depend on the order in which facts arrived, nor on earlier verdicts. Therefore evaluating
//! what has changed gives the same verdicts as evaluating everything.
//!
//! [`units`] names the units that a change concerns. `evaluation` reads their facts and writes
//! their verdicts; [`pass`] runs it and updates the alerts. These three do IO, all others are pure.
//!
//! | rule | unit | breach |
//! |---|---|---|
//! | 1 | session | injection with no needle mount in this session |
//! | 2 | mount, item | the same mount, or the same single-use serial, in two sessions |
//! | 3 | item | a single-use item inside a sterilization cycle |
//! | 4 | item | a reusable item used without a released, passed cycle since its previous session |
//! | 5 | sterilizer, item | cycle failed or indeterminate |
//! | 6 | mount, session, item | expired, pack breached, wet load |
//! | 7 | item | reprocessed more often than allowed |
//! | 8 | sterilizer | required test missing or failed |
//! | 9 | sterilizer, item | positive biological indicator: all loads since the last negative one |
//! | 10 | item | tap-water rinse |
//! | 11 | mount | more punctures than allowed for the needle |
//! | 12 | mount, session | lot recalled or expired |

pub mod assessment;
pub mod conditions;
pub mod curve;
mod evaluation;
pub mod item;
pub mod mount;
pub mod pass;
pub mod rules;
pub mod session;
pub mod sterilizer;
#[cfg(test)]
mod tests;
pub mod units;
