//! The mathematics of dose and depth accuracy, drift and sterility.
//!
//! By subject:
//! - accuracy: exact integer [`moments`] and the [`accuracy`] sums of them, [`sample`] figures of
//!   decimals, the [`tolerance`] factor, the [`verdict`] on independent and on [`clustered`]
//!   values, [`nonparametric`] intervals, [`wilson`] intervals of a share, the [`trumpet`] curve;
//! - drift: [`standard`]ised session means on [`cusum`], [`ewma`] and [`shewhart`] charts
//!   (together: [`chart`]). [`arl`] computes their run lengths, and an alarm [`budget`] gives their
//!   limits. Also [`western_electric`] rules for display, [`regression`] and the [`forecast`] from
//!   it;
//! - sterility: [`lethality`], [`hold`] time, [`saturation`] of steam;
//! - identity: [`gs1`] element strings.
//!
//! Each formula is documented with its source beside its code, and with an example in
//! `docs/analysis.md`.
//!
//! Absent: IO, clocks, threads, randomness, and any knowledge of tables or messages. Input and
//! output are numbers, and the texts of labels in [`gs1`].
//!
//! Invariants:
//! - Partial results merge associatively and commutatively; no figure depends on the order of
//!   arrival.
//! - A figure that does not exist is an [`Error`] or `None`, never NaN.

pub mod accuracy;
pub mod arl;
pub mod budget;
pub mod chart;
pub mod clustered;
pub mod cusum;
mod error;
pub mod ewma;
pub mod forecast;
pub mod gs1;
pub mod hold;
pub mod lethality;
mod linear;
pub mod moments;
pub mod nonparametric;
pub mod quadrature;
pub mod regression;
mod root;
pub mod sample;
pub mod saturation;
pub mod shewhart;
pub mod special;
pub mod standard;
pub mod tolerance;
pub mod trumpet;
pub mod verdict;
pub mod western_electric;
pub mod wilson;

pub use error::{Error, Result};

/// A side of a chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Above the limit or the centre.
    Upper,
    /// Below the limit or the centre.
    Lower,
}
