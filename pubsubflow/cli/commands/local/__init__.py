"""Commands that need no running daemon: on DAG files alone, and the demo with its own."""
