"""The source of DAGs: their files as bundles, and the graphs that they make."""
