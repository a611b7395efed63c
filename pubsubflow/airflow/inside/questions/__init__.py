"""Answers to questions about other runs, kept values and assets, by subject."""
