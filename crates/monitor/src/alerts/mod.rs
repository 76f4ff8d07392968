//! Alerts: one for each condition that holds or held.
//!
//! [`lifecycle`] decides what becomes of an alert and is pure. [`store`] applies its decisions to
//! the tables. [`notification`] sends open alerts to Kafka and Alertmanager.

pub mod lifecycle;
pub mod notification;
pub mod store;
