"""Routes of answers: of runs to callers, and of people to runs."""
