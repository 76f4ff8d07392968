-- A merge can be undone for a while.

-- A merge that runs while the disk fills can end in a part that cannot be read, which the engine notices at its next start
-- and throws away. It then goes back to the parts before the merge, if it still has them; by itself it deletes them at once.
ALTER TABLE accuracy_day MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE accuracy_hour MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE accuracy_minute MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE accuracy_session MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE accuracy_verdicts MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE alert_deliveries MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE alert_history MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE alerts MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE calibrations MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE cycle_indicators MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE cycle_releases MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE device_status MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE devices MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE drift MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE faults MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE incidents MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE injections MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE item_uses MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE kafka_topics MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE loader_commits MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE loader_intents MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE lots MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE models MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE monitor_positions MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE mounts MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE policies MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE preparations MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE quarantine MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE quarantine_purges MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE quarantine_replays MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE recalls MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE recipes MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE schema_migrations MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE sessions MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE sites MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE sterility_verdicts MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE sterilization_cycles MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE sterilization_items MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE sterilization_samples MODIFY SETTING old_parts_lifetime = 480;
ALTER TABLE unit_secret MODIFY SETTING old_parts_lifetime = 480;
