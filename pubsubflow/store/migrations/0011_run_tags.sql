-- Tags and notes that people put on runs.

ALTER TABLE run ADD COLUMN tags text[] NOT NULL DEFAULT '{}';
ALTER TABLE run ADD COLUMN note text;
