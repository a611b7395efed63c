"""Commands on DAG files alone, without a daemon."""
