"""JSON types of causality and of time: causes and effects, and how long a run took."""
