"""The caches of code: bundles on disk, and the DAGs that a process has imported."""
