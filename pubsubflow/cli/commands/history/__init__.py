"""Commands about what happened: causes and effects."""
