-- Records of imports: what decided each, so that a start takes what is stored as it is.

-- A record counts for the row of dag_file that it was written with: daemons of before write that row
-- alone, with another time.
CREATE TABLE dag_import (
    file        text PRIMARY KEY REFERENCES dag_file ON DELETE CASCADE,
    read_at     timestamptz NOT NULL,
    record      bytea NOT NULL
);
