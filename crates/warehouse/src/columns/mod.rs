//! Arrow columns of every table the loader writes.
//!
//! One builder for each table; a batch fills the builders it needs and turns each into one [`Block`], which is one Arrow
//! record batch, one INSERT, one part. Columns go by name, so that columns added to a table later do no harm. Repeated
//! text is dictionary-encoded; what a device says again in each report is looked up once for each table, not for each
//! report or event.

mod accuracy;
mod block;
mod column;
mod commit;
mod device;
mod fact;
mod injection;
mod quarantine;
mod session;
mod sterilization;

pub use accuracy::{AccuracyMinute, AccuracyRow, AccuracySession, ItemUse, ItemUses};
pub use block::{Block, Provenance, TABLES};
pub use commit::{CommitRows, Committed, LedgerRow, REPLAYED_BOOT};
pub use device::{Calibrations, DeviceStatus, Faults, Sign};
pub use fact::{Origin, Slot};
pub use injection::Injections;
pub use quarantine::{Outcome, Quarantine, QuarantineReplays, Quarantined, Replayed};
pub use session::{Mounts, Preparations, Sessions};
pub use sterilization::{
    CycleIndicators, CycleReleases, SterilizationCycles, SterilizationItems, SterilizationSamples,
};

pub use column::Texts;
pub(crate) use column::{Bits, Bytes, Code, List, Number, Shared, Text, Time};
pub(crate) use fact::Facts;

/// Declares a table's columns: a struct with one field for each, and how it becomes a [`Block`]. A `*` marks a group of
/// columns.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $table:literal, $(*$group:ident: $columns:ty,)* { $($(#[$field_doc:meta])* $field:ident $(as $column:literal)?: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub struct $name {
            $($group: $columns,)*
            $($(#[$field_doc])* pub(crate) $field: $kind,)*
        }

        impl $name {
            /// Turns the rows into the batch's block for this table; none without rows.
            pub fn finish(self, provenance: $crate::columns::Provenance) -> Option<$crate::columns::Block> {
                let columns = vec![
                    $($crate::columns::column::finish($crate::columns::table!(@name $field $($column)?), self.$field),)*
                ];
                $(let columns = self.$group.finish(columns);)*
                $crate::columns::Block::new($table, columns, provenance)
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $column:literal) => { $column };
}
pub(crate) use table;
