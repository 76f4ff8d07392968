-- Tokens outlive the rows they came with.

-- A part whose rows have all been deleted is removed by the engine a minute later, and its deduplication tokens with it: a late
-- writer whose token had been used up so that it would be shut out could then write after all. So such parts stay until they
-- are merged, which keeps the tokens. `migrate` sets the same on tables that come later.
ALTER TABLE injections MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE sessions MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE preparations MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE mounts MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE sterilization_cycles MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE sterilization_samples MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE sterilization_items MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE cycle_indicators MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE cycle_releases MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE calibrations MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE faults MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE device_status MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE quarantine MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE accuracy_minute MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE accuracy_session MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE item_uses MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE kafka_topics MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE loader_commits MODIFY SETTING remove_empty_parts = 0;
ALTER TABLE loader_intents MODIFY SETTING remove_empty_parts = 0;
