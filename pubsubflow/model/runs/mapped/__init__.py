"""Mapped task groups: each index of a group is decided for itself."""
