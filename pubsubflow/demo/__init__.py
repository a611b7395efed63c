"""The demo: a pipeline of four DAGs on a year of real departures from New York."""
