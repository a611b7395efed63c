"""Pure values and decisions: no I/O, no clock of its own, one implementation of every rule."""
