-- The DAGs that a connection is for.

-- Ids of DAGs and patterns of them; empty for all. The secrets of a connection are bound to it, so
-- that daemons of before can read none of a connection that has some.
ALTER TABLE connection ADD COLUMN dags text[] NOT NULL DEFAULT '{}';
