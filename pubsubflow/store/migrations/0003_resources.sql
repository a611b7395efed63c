-- Resources of tasks: what attempts used, and what workers have for tasks that declare some.

ALTER TABLE task ADD COLUMN peak_memory bigint;      -- bytes; null where it is not known
ALTER TABLE attempt ADD COLUMN peak_memory bigint;

ALTER TABLE worker ADD COLUMN memory bigint;         -- bytes for such tasks; null without a bound
ALTER TABLE worker ADD COLUMN cpu float8;
ALTER TABLE worker ADD COLUMN free_memory bigint;    -- of that, what no running task has declared
ALTER TABLE worker ADD COLUMN free_cpu float8;
