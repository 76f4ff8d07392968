//! The Arrow columns of every table that the loader writes.
//!
//! Each table has a builder. A batch fills the builders that it needs and turns each of them into
//! one [`Block`], which is one Arrow record batch, one INSERT and one part. Columns are matched by
//! name, so a table can get more columns later. Repeated text is dictionary-encoded. A text that a
//! device repeats in each report is looked up once for each batch ([`Commons`]), not for each
//! report, event or table.

mod accuracy;
mod block;
mod column;
mod command;
mod commit;
mod content;
mod device;
mod fact;
mod implausible;
mod injection;
mod quarantine;
mod session;
mod sterilization;

pub use accuracy::{AccuracyMinute, AccuracyRow, AccuracySession, ItemUse, ItemUses};
pub use block::{Block, EVENT_TABLES, Provenance, SHARED_TABLES, TABLES, all_tables};
pub use command::{Acknowledgements, Audit, Fate, Incidents, Policies, RegisteredDevices};
pub use commit::{CommitRows, Committed, LedgerRow, LossCause, REPLAYED_BOOT};
pub use content::{EventContent, EventKey, Kept, compared, contents, difference};
pub use device::{Calibrations, DeviceStatus, Faults, Sign};
pub use fact::{Common, Commons, IMPLAUSIBLE_TIME, Mounted, Origin, UNKNOWN_ENUM, UNKNOWN_FIELDS};
pub use implausible::ImplausibleTimes;
pub use injection::Injections;
pub use quarantine::{Outcome, Quarantine, QuarantineReplays, Quarantined, Replayed};
pub use session::{Mounts, Preparations, Sessions};
pub use sterilization::{
    CycleIndicators, CycleReleases, SterilizationCycles, SterilizationItems, SterilizationSamples,
};

pub(crate) use column::{Bits, Bytes, Code, Lines, List, Maybe, Number, Text, Texts, Time, Words};
pub(crate) use fact::Facts;

/// Declares a table's columns: a struct with a field for each column, and its conversion to a
/// [`Block`]. A `*` marks a group of columns whose texts come from [`Commons`].
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $table:literal, $(*$group:ident: $columns:ty,)? { $($(#[$field_doc:meta])* $field:ident $(as $column:literal)?: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub struct $name {
            $($group: $columns,)?
            $($(#[$field_doc])* pub(crate) $field: $kind,)*
        }

        impl $name {
            $crate::columns::table! { @finish $table, $($group)?, {
                $($crate::columns::table!(@name $field $($column)?), $field,)*
            } }
        }
    };
    (@finish $table:literal, $group:ident, { $($column:expr, $field:ident,)* }) => {
        /// Turns the rows into the batch's block for this table; `None` if there are no rows.
        pub fn finish(
            self,
            provenance: $crate::columns::Provenance,
            commons: &$crate::columns::Commons,
        ) -> Option<$crate::columns::Block> {
            let columns = vec![$($crate::columns::column::finish($column, self.$field),)*];
            $crate::columns::Block::new($table, self.$group.finish(columns, commons), provenance)
        }
    };
    (@finish $table:literal, , { $($column:expr, $field:ident,)* }) => {
        /// Turns the rows into the batch's block for this table; `None` if there are no rows.
        pub fn finish(self, provenance: $crate::columns::Provenance) -> Option<$crate::columns::Block> {
            let columns = vec![$($crate::columns::column::finish($column, self.$field),)*];
            $crate::columns::Block::new($table, columns, provenance)
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $column:literal) => { $column };
}
pub(crate) use table;
