"""Processes of a bundle: of a file, of its attempts, and what they share."""
