-- Roles on some DAGs and datasets, of tokens and of people who sign in by OpenID Connect.
ALTER TABLE token ADD COLUMN grants text[] NOT NULL DEFAULT '{}';
ALTER TABLE session ADD COLUMN role text; -- of a person; NULL where a token's counts
ALTER TABLE session ADD COLUMN grants text[] NOT NULL DEFAULT '{}';
