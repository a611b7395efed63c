"""The form in which progress of runs is stored."""
