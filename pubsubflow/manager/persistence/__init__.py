"""Rows to objects and back: loads what a batch touches, saves what it changed."""
