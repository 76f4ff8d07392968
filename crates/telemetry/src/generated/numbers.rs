// Field numbers of the messages in /proto.

pub mod report {
    pub const BOOT_ID: u32 = 1;
    pub const FIRST_SEQ: u32 = 2;
    pub const BASE_UNIX_US: u32 = 3;
    pub const BASE_UPTIME_US: u32 = 4;
    pub const CLOCK: u32 = 5;
    pub const CONTEXT: u32 = 6;
    pub const EVENTS: u32 = 7;
    pub const LOST: u32 = 8;
    pub const EARLIER_BOOTS: u32 = 9;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9)
    }
}

pub mod context {
    pub const MODEL: u32 = 1;
    pub const FIRMWARE: u32 = 2;
    pub const SESSION_ID: u32 = 3;
    pub const MOUNTS: u32 = 4;
    pub const DOSE_CALIBRATION_ID: u32 = 5;
    pub const DEPTH_CALIBRATION_ID: u32 = 6;
    pub const PREPARATION_ID: u32 = 7;
    pub const OPERATOR_ID: u32 = 8;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8)
    }
}

pub mod mount_in_use {
    pub const SLOT: u32 = 1;
    pub const MOUNT_ID: u32 = 2;
    pub const ITEM_ID: u32 = 3;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3)
    }
}

pub mod lost_range {
    pub const FIRST_SEQ: u32 = 1;
    pub const LAST_SEQ: u32 = 2;
    pub const REASON: u32 = 3;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3)
    }
}

pub mod earlier_boot {
    pub const BOOT_ID: u32 = 1;
    pub const LAST_SEQ: u32 = 2;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2)
    }
}

pub mod event {
    pub const OFFSET_US: u32 = 1;
    pub const INJECTION: u32 = 2;
    pub const SESSION_STARTED: u32 = 3;
    pub const SESSION_ENDED: u32 = 4;
    pub const CONSUMABLE_MOUNTED: u32 = 5;
    pub const PRIMED: u32 = 6;
    pub const CONSUMABLE_REMOVED: u32 = 7;
    pub const PREPARATION: u32 = 8;
    pub const STERILIZATION_CYCLE: u32 = 9;
    pub const CYCLE_INDICATOR: u32 = 10;
    pub const CYCLE_RELEASE: u32 = 11;
    pub const REPROCESSED: u32 = 12;
    pub const CALIBRATION: u32 = 13;
    pub const FAULT: u32 = 14;
    pub const HEARTBEAT: u32 = 15;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15)
    }
}

pub mod injection {
    pub const SHOT: u32 = 1;
    pub const INJECTION_NO: u32 = 2;
    pub const MODE: u32 = 3;
    pub const OUTCOME: u32 = 4;
    pub const AREA: u32 = 5;
    pub const TARGET_NL: u32 = 6;
    pub const DELIVERED_NL: u32 = 7;
    pub const TARGET_UM: u32 = 8;
    pub const MEASURED_UM: u32 = 9;
    pub const DOSE_SOURCE: u32 = 10;
    pub const DEPTH_SOURCE: u32 = 11;
    pub const ANGLE_MDEG: u32 = 12;
    pub const DURATION_US: u32 = 13;
    pub const PUNCTURES: u32 = 14;
    pub const NEEDLE_COUNT: u32 = 15;
    pub const PEAK_FORCE_MN: u32 = 16;
    pub const PRESSURE_PA: u32 = 17;
    pub const VACUUM_PA: u32 = 18;
    pub const MOTOR_MA: u32 = 19;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15 | 16 | 17 | 18 | 19)
    }
}

pub mod session_started {
    pub const COURSE_ID: u32 = 1;
    pub const COURSE_INDEX: u32 = 2;
    pub const COURSE_PLANNED: u32 = 3;
    pub const INTERVAL_DAYS: u32 = 4;
    pub const CLIENT_REF: u32 = 5;
    pub const ALLERGY_RESULT: u32 = 6;
    pub const ALLERGY_UNIX_US: u32 = 7;
    pub const ALLERGY_FORMULA_ID: u32 = 8;
    pub const LICENCE: u32 = 9;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9)
    }
}

pub mod session_ended {
    pub const SHOTS: u32 = 1;
    pub const DELIVERED_NL: u32 = 2;
    pub const REASON: u32 = 3;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3)
    }
}

pub mod consumable_mounted {
    pub const SLOT: u32 = 1;
    pub const MOUNT_ID: u32 = 2;
    pub const ITEM_ID: u32 = 3;
    pub const ID_KIND: u32 = 4;
    pub const UDI_DI: u32 = 5;
    pub const LOT: u32 = 6;
    pub const EXPIRY: u32 = 7;
    pub const TYPE: u32 = 8;
    pub const GAUGE: u32 = 9;
    pub const REUSABLE: u32 = 10;
    pub const PACK_ID: u32 = 11;
    pub const PACK_INTACT: u32 = 12;
    pub const FILL_NL: u32 = 13;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13)
    }
}

pub mod primed {
    pub const MOUNT_ID: u32 = 1;
    pub const VOLUME_NL: u32 = 2;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2)
    }
}

pub mod consumable_removed {
    pub const MOUNT_ID: u32 = 1;
    pub const RESIDUAL_NL: u32 = 2;
    pub const RESIDUAL_SOURCE: u32 = 3;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3)
    }
}

pub mod preparation {
    pub const PREPARATION_ID: u32 = 1;
    pub const FORMULA_ID: u32 = 2;
    pub const PREPARED_UNIX_US: u32 = 3;
    pub const USE_BY_UNIX_US: u32 = 4;
    pub const COMPONENTS: u32 = 5;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5)
    }
}

pub mod component {
    pub const UDI_DI: u32 = 1;
    pub const LOT: u32 = 2;
    pub const EXPIRY: u32 = 3;
    pub const CONTAINER_ID: u32 = 4;
    pub const OPENED_UNIX_US: u32 = 5;
    pub const VOLUME_NL: u32 = 6;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6)
    }
}

pub mod sterilization_cycle {
    pub const CYCLE_UID: u32 = 1;
    pub const CYCLE_NO: u32 = 2;
    pub const RECIPE: u32 = 3;
    pub const PURPOSE: u32 = 4;
    pub const ITEMS: u32 = 5;
    pub const SAMPLES: u32 = 6;
    pub const LOAD_DRY: u32 = 7;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7)
    }
}

pub mod cycle_item {
    pub const ITEM_ID: u32 = 1;
    pub const PACK_ID: u32 = 2;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2)
    }
}

pub mod cycle_sample {
    pub const OFFSET_MS: u32 = 1;
    pub const SENSOR: u32 = 2;
    pub const TEMPERATURE_MC: u32 = 3;
    pub const PRESSURE_PA: u32 = 4;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4)
    }
}

pub mod cycle_indicator {
    pub const CYCLE_UID: u32 = 1;
    pub const KIND: u32 = 2;
    pub const LOT: u32 = 3;
    pub const RESULT: u32 = 4;
    pub const READ_UNIX_US: u32 = 5;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5)
    }
}

pub mod cycle_release {
    pub const CYCLE_UID: u32 = 1;
    pub const DECISION: u32 = 2;
    pub const ACTOR: u32 = 3;
    pub const AT_UNIX_US: u32 = 4;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4)
    }
}

pub mod reprocessed {
    pub const ITEM_ID: u32 = 1;
    pub const RINSE_WATER: u32 = 2;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2)
    }
}

pub mod calibration {
    pub const SUBJECT_DEVICE: u32 = 1;
    pub const CHANNEL: u32 = 2;
    pub const CALIBRATION_ID: u32 = 3;
    pub const PERFORMED_UNIX_US: u32 = 4;
    pub const DUE_UNIX_US: u32 = 5;
    pub const CERTIFICATE: u32 = 6;
    pub const POINTS: u32 = 7;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7)
    }
}

pub mod calibration_point {
    pub const TARGET: u32 = 1;
    pub const REFERENCE: u32 = 2;
    pub const INDICATED: u32 = 3;
    pub const PHASE: u32 = 4;
    pub const EXPANDED_UNCERTAINTY: u32 = 5;
    pub const K: u32 = 6;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6)
    }
}

pub mod fault {
    pub const CODE: u32 = 1;
    pub const STATE: u32 = 2;
    pub const DETAIL: u32 = 3;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3)
    }
}

pub mod heartbeat {
    pub const BATTERY_PCT: u32 = 1;
    pub const TEMPERATURE_MC: u32 = 2;
    pub const OUTBOX_EVENTS: u32 = 3;
    pub const OLDEST_UNRECEIPTED_S: u32 = 4;
    pub const INJECTION_NO: u32 = 5;
    pub const BOOT_ID: u32 = 6;
    pub const LAST_SEQ: u32 = 7;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7)
    }
}

pub mod status {
    pub const STATE: u32 = 1;
    pub const SINCE_UNIX_US: u32 = 2;
    pub const BATTERY_PCT: u32 = 3;
    pub const FIRMWARE: u32 = 4;
    pub const MODEL: u32 = 5;
    pub const BOOT_ID: u32 = 6;
    pub const LAST_SEQ: u32 = 7;
    pub const OUTBOX_EVENTS: u32 = 8;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8)
    }
}

pub mod receipt {
    pub const BOOT_ID: u32 = 1;
    pub const RANGES: u32 = 2;
    pub const CODE: u32 = 3;
    pub const REASON: u32 = 4;
    pub const PAYLOAD_SHA256: u32 = 5;
    pub const RETRY_AFTER_MS: u32 = 6;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2 | 3 | 4 | 5 | 6)
    }
}

pub mod seq_range {
    pub const FIRST: u32 = 1;
    pub const LAST: u32 = 2;
    pub const fn is_known(number: u32) -> bool {
        matches!(number, 1 | 2)
    }
}
