"""Commands that change runs: one by one, or many by filters."""
