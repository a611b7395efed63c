"""Commands for answers: of runs to callers, and of people to runs."""
