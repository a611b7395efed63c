-- Names of instances of mapped tasks.

ALTER TABLE task ADD COLUMN map_name text;
