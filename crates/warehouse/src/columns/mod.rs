//! Arrow columns of every table the loader writes.
//!
//! One builder for each table; a batch fills the builders it needs and turns each into one
//! [`Block`], which is one Arrow record batch, one INSERT, one part. Columns go by name, so that
//! columns added to a table later do no harm. Repeated text is dictionary-encoded; what a device
//! says again in each report is looked up once for each batch ([`Commons`]), not for each report,
//! event or table.

mod accuracy;
mod block;
mod column;
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
pub use block::{Block, EVENT_TABLES, Provenance, TABLES};
pub use commit::{CommitRows, Committed, LedgerRow, Lost, REPLAYED_BOOT};
pub use content::{Content, EventKey, Kept, compared, contents, difference};
pub use device::{Calibrations, DeviceStatus, Faults, Sign};
pub use fact::{Common, Commons, IMPLAUSIBLE_TIME, Mounted, Origin, UNKNOWN_ENUM, UNKNOWN_FIELDS};
pub use implausible::ImplausibleTimes;
pub use injection::Injections;
pub use quarantine::{Outcome, Quarantine, QuarantineReplays, Quarantined, Replayed};
pub use session::{Mounts, Preparations, Sessions};
pub use sterilization::{
    CycleIndicators, CycleReleases, SterilizationCycles, SterilizationItems, SterilizationSamples,
};

pub(crate) use column::{Bits, Bytes, Code, List, Maybe, Number, Text, Texts, Time, Words};
pub(crate) use fact::Facts;

/// Declares a table's columns: a struct with one field for each, and how it becomes a [`Block`]. A
/// `*` marks a group of columns with texts of [`Commons`].
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
        /// Turns the rows into the batch's block for this table; none without rows.
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
        /// Turns the rows into the batch's block for this table; none without rows.
        pub fn finish(self, provenance: $crate::columns::Provenance) -> Option<$crate::columns::Block> {
            let columns = vec![$($crate::columns::column::finish($column, self.$field),)*];
            $crate::columns::Block::new($table, columns, provenance)
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $column:literal) => { $column };
}
pub(crate) use table;
