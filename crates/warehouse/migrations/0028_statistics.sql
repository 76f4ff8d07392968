-- Without statistics of each column in each part: nothing here is found by them, and they are a third to a half of what merging
-- small parts takes.

ALTER TABLE injections MODIFY SETTING auto_statistics_types = '';

ALTER TABLE accuracy_minute MODIFY SETTING auto_statistics_types = '';

ALTER TABLE accuracy_session MODIFY SETTING auto_statistics_types = '';

ALTER TABLE item_uses MODIFY SETTING auto_statistics_types = '';

ALTER TABLE loader_intents MODIFY SETTING auto_statistics_types = '';

ALTER TABLE loader_commits MODIFY SETTING auto_statistics_types = '';

ALTER TABLE device_status MODIFY SETTING auto_statistics_types = '';
