"""The execution of one task attempt: its context, waits, steps and results."""
