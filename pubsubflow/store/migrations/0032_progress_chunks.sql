-- Progress of large runs in chunks, so that a result rewrites only what it changes; run_live.progress
-- is the head of it.

CREATE TABLE progress_chunk (
    run         bigint NOT NULL,
    number      int NOT NULL,
    progress    bytea NOT NULL,          -- 128 nodes, in MessagePack
    PRIMARY KEY (run, number)
) WITH (fillfactor = 50);
-- To compress it would cost more than to write it.
ALTER TABLE progress_chunk ALTER COLUMN progress SET STORAGE EXTERNAL;
