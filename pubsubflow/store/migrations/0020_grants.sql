-- Roles on some DAGs and datasets, of tokens.
ALTER TABLE token ADD COLUMN grants text[] NOT NULL DEFAULT '{}';
