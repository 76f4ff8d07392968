-- The rollup of an ingest day is written by one INSERT under a deduplication token, by whichever
-- loader comes first. So these tables remember tokens, also those of parts whose rows are deleted.
ALTER TABLE accuracy_hour MODIFY SETTING non_replicated_deduplication_window = 100000, remove_empty_parts = 0;

ALTER TABLE accuracy_day MODIFY SETTING non_replicated_deduplication_window = 100000, remove_empty_parts = 0;
