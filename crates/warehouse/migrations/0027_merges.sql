-- What many rows go through: LZ4 instead of ZSTD. It takes ClickHouse a third less time, and text that repeats from row to row packs
-- better with it (docs/performance.md); measured integers pack worse. Parts that are there stay as they are.

ALTER TABLE injections
    MODIFY COLUMN boot_id CODEC(LZ4),
    MODIFY COLUMN seq CODEC(Delta, LZ4),
    MODIFY COLUMN at CODEC(Delta, LZ4),
    MODIFY COLUMN received_at CODEC(Delta, LZ4),
    MODIFY COLUMN session_id CODEC(LZ4),
    MODIFY COLUMN injection_no CODEC(Delta, LZ4),
    MODIFY COLUMN shot CODEC(Delta, LZ4),
    MODIFY COLUMN target_nl CODEC(T64, LZ4),
    MODIFY COLUMN delivered_nl CODEC(T64, LZ4),
    MODIFY COLUMN target_um CODEC(T64, LZ4),
    MODIFY COLUMN measured_um CODEC(T64, LZ4),
    MODIFY COLUMN angle_mdeg CODEC(T64, LZ4),
    MODIFY COLUMN duration_us CODEC(T64, LZ4),
    MODIFY COLUMN punctures CODEC(T64, LZ4),
    MODIFY COLUMN needle_count CODEC(T64, LZ4),
    MODIFY COLUMN peak_force_mn CODEC(T64, LZ4),
    MODIFY COLUMN pressure_pa CODEC(T64, LZ4),
    MODIFY COLUMN vacuum_pa CODEC(T64, LZ4),
    MODIFY COLUMN motor_ma CODEC(T64, LZ4),
    MODIFY COLUMN needle_mount_id CODEC(LZ4),
    MODIFY COLUMN needle_item_id CODEC(LZ4),
    MODIFY COLUMN syringe_mount_id CODEC(LZ4),
    MODIFY COLUMN syringe_item_id CODEC(LZ4),
    MODIFY COLUMN handpiece_mount_id CODEC(LZ4),
    MODIFY COLUMN handpiece_item_id CODEC(LZ4),
    MODIFY COLUMN preparation_id CODEC(LZ4),
    MODIFY COLUMN flags CODEC(T64, LZ4),
    MODIFY COLUMN kafka_offset CODEC(Delta, LZ4),
    MODIFY COLUMN ingest_day CODEC(LZ4),
    MODIFY COLUMN incarnation CODEC(LZ4),
    MODIFY COLUMN kafka_partition CODEC(LZ4),
    MODIFY COLUMN batch CODEC(LZ4),
    MODIFY COLUMN gen CODEC(LZ4),
    MODIFY COLUMN batch_hash CODEC(LZ4);

ALTER TABLE accuracy_minute
    MODIFY COLUMN minute CODEC(Delta, LZ4),
    MODIFY COLUMN injections CODEC(T64, LZ4),
    MODIFY COLUMN dose_n CODEC(T64, LZ4),
    MODIFY COLUMN dose_target_nl CODEC(T64, LZ4),
    MODIFY COLUMN dose_delivered_nl CODEC(T64, LZ4),
    MODIFY COLUMN dose_error_nl CODEC(T64, LZ4),
    MODIFY COLUMN dose_error_sq CODEC(T64, LZ4),
    MODIFY COLUMN dose_error_min CODEC(T64, LZ4),
    MODIFY COLUMN dose_error_max CODEC(T64, LZ4),
    MODIFY COLUMN depth_n CODEC(T64, LZ4),
    MODIFY COLUMN depth_target_um CODEC(T64, LZ4),
    MODIFY COLUMN depth_measured_um CODEC(T64, LZ4),
    MODIFY COLUMN depth_error_um CODEC(T64, LZ4),
    MODIFY COLUMN depth_error_sq CODEC(T64, LZ4),
    MODIFY COLUMN depth_error_min CODEC(T64, LZ4),
    MODIFY COLUMN depth_error_max CODEC(T64, LZ4),
    MODIFY COLUMN ok CODEC(T64, LZ4),
    MODIFY COLUMN partial CODEC(T64, LZ4),
    MODIFY COLUMN aborted CODEC(T64, LZ4),
    MODIFY COLUMN occluded CODEC(T64, LZ4),
    MODIFY COLUMN no_contact CODEC(T64, LZ4),
    MODIFY COLUMN first_at CODEC(Delta, LZ4),
    MODIFY COLUMN last_at CODEC(Delta, LZ4),
    MODIFY COLUMN ingest_day CODEC(LZ4),
    MODIFY COLUMN incarnation CODEC(LZ4),
    MODIFY COLUMN kafka_partition CODEC(LZ4),
    MODIFY COLUMN batch CODEC(LZ4),
    MODIFY COLUMN gen CODEC(LZ4),
    MODIFY COLUMN batch_hash CODEC(LZ4);

ALTER TABLE accuracy_session
    MODIFY COLUMN session_id CODEC(LZ4),
    MODIFY COLUMN target_nl CODEC(T64, LZ4),
    MODIFY COLUMN target_um CODEC(T64, LZ4),
    MODIFY COLUMN injections CODEC(T64, LZ4),
    MODIFY COLUMN dose_n CODEC(T64, LZ4),
    MODIFY COLUMN dose_target_nl CODEC(T64, LZ4),
    MODIFY COLUMN dose_delivered_nl CODEC(T64, LZ4),
    MODIFY COLUMN dose_error_nl CODEC(T64, LZ4),
    MODIFY COLUMN dose_error_sq CODEC(T64, LZ4),
    MODIFY COLUMN dose_error_min CODEC(T64, LZ4),
    MODIFY COLUMN dose_error_max CODEC(T64, LZ4),
    MODIFY COLUMN depth_n CODEC(T64, LZ4),
    MODIFY COLUMN depth_target_um CODEC(T64, LZ4),
    MODIFY COLUMN depth_measured_um CODEC(T64, LZ4),
    MODIFY COLUMN depth_error_um CODEC(T64, LZ4),
    MODIFY COLUMN depth_error_sq CODEC(T64, LZ4),
    MODIFY COLUMN depth_error_min CODEC(T64, LZ4),
    MODIFY COLUMN depth_error_max CODEC(T64, LZ4),
    MODIFY COLUMN ok CODEC(T64, LZ4),
    MODIFY COLUMN partial CODEC(T64, LZ4),
    MODIFY COLUMN aborted CODEC(T64, LZ4),
    MODIFY COLUMN occluded CODEC(T64, LZ4),
    MODIFY COLUMN no_contact CODEC(T64, LZ4),
    MODIFY COLUMN first_at CODEC(Delta, LZ4),
    MODIFY COLUMN last_at CODEC(Delta, LZ4),
    MODIFY COLUMN dose_error_bins CODEC(Delta, LZ4),
    MODIFY COLUMN dose_error_counts CODEC(T64, LZ4),
    MODIFY COLUMN ingest_day CODEC(LZ4),
    MODIFY COLUMN incarnation CODEC(LZ4),
    MODIFY COLUMN kafka_partition CODEC(LZ4),
    MODIFY COLUMN batch CODEC(LZ4),
    MODIFY COLUMN gen CODEC(LZ4),
    MODIFY COLUMN batch_hash CODEC(LZ4);

ALTER TABLE item_uses
    MODIFY COLUMN session_id CODEC(LZ4),
    MODIFY COLUMN mount_id CODEC(LZ4),
    MODIFY COLUMN item_id CODEC(LZ4),
    MODIFY COLUMN injections CODEC(T64, LZ4),
    MODIFY COLUMN punctures CODEC(T64, LZ4),
    MODIFY COLUMN delivered_nl CODEC(T64, LZ4),
    MODIFY COLUMN delivered_n CODEC(T64, LZ4),
    MODIFY COLUMN first_at CODEC(Delta, LZ4),
    MODIFY COLUMN last_at CODEC(Delta, LZ4),
    MODIFY COLUMN ingest_day CODEC(LZ4),
    MODIFY COLUMN incarnation CODEC(LZ4),
    MODIFY COLUMN kafka_partition CODEC(LZ4),
    MODIFY COLUMN batch CODEC(LZ4),
    MODIFY COLUMN gen CODEC(LZ4),
    MODIFY COLUMN batch_hash CODEC(LZ4);

ALTER TABLE loader_intents
    MODIFY COLUMN incarnation CODEC(LZ4),
    MODIFY COLUMN kafka_partition CODEC(LZ4),
    MODIFY COLUMN batch CODEC(Delta, LZ4),
    MODIFY COLUMN batch_end CODEC(Delta, LZ4),
    MODIFY COLUMN gen CODEC(LZ4),
    MODIFY COLUMN decoder_version CODEC(LZ4),
    MODIFY COLUMN plausibility_hash CODEC(LZ4),
    MODIFY COLUMN ingest_day CODEC(LZ4),
    MODIFY COLUMN owner CODEC(LZ4),
    MODIFY COLUMN created_at CODEC(Delta, LZ4);

ALTER TABLE loader_commits
    MODIFY COLUMN kind CODEC(LZ4),
    MODIFY COLUMN incarnation CODEC(LZ4),
    MODIFY COLUMN kafka_partition CODEC(LZ4),
    MODIFY COLUMN batch CODEC(Delta, LZ4),
    MODIFY COLUMN batch_end CODEC(Delta, LZ4),
    MODIFY COLUMN gen CODEC(LZ4),
    MODIFY COLUMN rows CODEC(T64, LZ4),
    MODIFY COLUMN committed_at CODEC(Delta, LZ4),
    MODIFY COLUMN boot_id CODEC(LZ4),
    MODIFY COLUMN stored_first CODEC(Delta, LZ4),
    MODIFY COLUMN stored_last CODEC(Delta, LZ4),
    MODIFY COLUMN quarantined_first CODEC(Delta, LZ4),
    MODIFY COLUMN quarantined_last CODEC(Delta, LZ4),
    MODIFY COLUMN lost_first CODEC(Delta, LZ4),
    MODIFY COLUMN lost_last CODEC(Delta, LZ4),
    MODIFY COLUMN declared_last CODEC(T64, LZ4),
    MODIFY COLUMN last_arrival CODEC(Delta, LZ4);

ALTER TABLE device_status
    MODIFY COLUMN boot_id CODEC(LZ4),
    MODIFY COLUMN seq CODEC(Delta, LZ4),
    MODIFY COLUMN at CODEC(Delta, LZ4),
    MODIFY COLUMN received_at CODEC(Delta, LZ4),
    MODIFY COLUMN session_id CODEC(LZ4),
    MODIFY COLUMN since CODEC(Delta, LZ4),
    MODIFY COLUMN battery_pct CODEC(T64, LZ4),
    MODIFY COLUMN temperature_mc CODEC(T64, LZ4),
    MODIFY COLUMN outbox_events CODEC(T64, LZ4),
    MODIFY COLUMN oldest_unreceipted_s CODEC(T64, LZ4),
    MODIFY COLUMN injection_no CODEC(Delta, LZ4),
    MODIFY COLUMN last_boot_id CODEC(LZ4),
    MODIFY COLUMN last_seq CODEC(Delta, LZ4),
    MODIFY COLUMN kafka_offset CODEC(Delta, LZ4),
    MODIFY COLUMN ingest_day CODEC(LZ4),
    MODIFY COLUMN incarnation CODEC(LZ4),
    MODIFY COLUMN kafka_partition CODEC(LZ4),
    MODIFY COLUMN batch CODEC(LZ4),
    MODIFY COLUMN gen CODEC(LZ4),
    MODIFY COLUMN batch_hash CODEC(LZ4);

-- Merges of more parts at once: each row is written again about half as often, for some ten parts more in a day's partition.
ALTER TABLE injections MODIFY SETTING merge_selector_base = 10;

ALTER TABLE accuracy_minute MODIFY SETTING merge_selector_base = 10;

ALTER TABLE accuracy_session MODIFY SETTING merge_selector_base = 10;

ALTER TABLE item_uses MODIFY SETTING merge_selector_base = 10;

ALTER TABLE loader_intents MODIFY SETTING merge_selector_base = 10;

ALTER TABLE loader_commits MODIFY SETTING merge_selector_base = 10;

ALTER TABLE device_status MODIFY SETTING merge_selector_base = 10;
