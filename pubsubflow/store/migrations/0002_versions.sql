-- Which version of pubsubflow each worker is of, so that an upgrade can be followed.
ALTER TABLE worker
    ADD COLUMN version  text NOT NULL DEFAULT '', -- empty: of before this column
    ADD COLUMN protocol int NOT NULL DEFAULT 1;
