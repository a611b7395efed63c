"""A cluster: three NATS servers, Postgres with a standby, daemons; each in a network of its own."""
