-- Sessions of the page: a browser that has signed in, or a link by which one may.
CREATE TABLE session (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,            -- the principal's
    token      uuid,                     -- whose role it has; NULL where none was needed
    role       text,                     -- of a person who signed in by OpenID Connect, else NULL
    grants     text[] NOT NULL DEFAULT '{}', -- likewise: roles on some DAGs and datasets
    owner      bool NOT NULL DEFAULT false, -- may do everything: of the owner of a daemon's home
    digest     bytea,                    -- SHA-256 of the cookie; NULL until the link was followed
    link       bytea,                    -- SHA-256 of the link's code; NULL once it was followed
    agent      text,                     -- the browser, as it calls itself
    remote     text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    ended_at   timestamptz
);
CREATE UNIQUE INDEX session_by_link ON session (link) WHERE link IS NOT NULL;
CREATE INDEX session_by_expiry ON session (expires_at);
