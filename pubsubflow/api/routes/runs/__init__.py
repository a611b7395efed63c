"""Routes of runs: list, show and filter them, change one, and act on many."""
