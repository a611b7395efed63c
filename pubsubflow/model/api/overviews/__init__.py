"""JSON types of what sums up many rows in one answer."""
